"""Hosts that sweep, with real servers and clients of HTTP, and with the events that platforms send."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from duramen import Runtime
from duramen.errors import InvalidArgument
from duramen.hosts import asgi, wsgi
from duramen.hosts.aws_lambda import sweep_handler
from duramen.hosts.sweeping import MAX_BODY, SweepHost
from tests.hosts.apps import SECRET, doubling

ROOT = Path(__file__).parents[2]
AUTHORIZED = {"Authorization": f"Bearer {SECRET}"}


@contextmanager
def uvicorn(store: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "tests.hosts.apps:asgi_app", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "HOSTS_STORE": store},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        said = ""
        while (found := re.search(r"running on http://\S+:(\d+)", said)) is None:
            line = process.stderr.readline()
            assert line, said
            said += line
        yield int(found[1])
    finally:
        process.terminate()
        process.communicate(timeout=30)


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        pass


@contextmanager
def wsgiref(store: str) -> Iterator[int]:
    app = wsgi.sweep_app(
        lambda: Runtime(store, workflows=[doubling]), secret=SECRET, max_queued=3, max_duration=20
    )
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


SERVERS = pytest.mark.parametrize("serving", [uvicorn, wsgiref])
Serving = Callable[[str], Any]


def ask(
    port: int, method: str = "GET", path: str = "/", headers: dict[str, str] | None = None, body: Any = None
) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, AUTHORIZED if headers is None else headers)
        answer = connection.getresponse()
        assert answer.getheader("content-type") == "application/json"
        said = answer.read()
        return answer.status, json.loads(said) if said else {}
    finally:
        connection.close()


async def enqueue(store: str, count: int) -> None:
    async with Runtime(store, workflows=[doubling]) as runtime:
        await runtime.enqueue_many([(doubling, number) for number in range(count)])


async def completed(store: str) -> int:
    async with Runtime(store, workflows=[doubling]) as runtime:
        return await runtime.count(status="completed")


@SERVERS
def test_a_sweep_for_each_request_within_the_budget(tmp_path: Path, serving: Serving) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    asyncio.run(enqueue(store, 8))
    with serving(store) as port:
        status, said = ask(port)
        assert (status, said["queued"], said["remaining_may_exist"]) == (200, 3, True)
        assert said["summary"]["completed"] == 3
        # Less may be asked for in the query or the body, more is not had.
        assert ask(port, path="/any/where?max_queued=1")[1]["queued"] == 1
        assert ask(port, "POST", body=json.dumps({"max_queued": 2}))[1]["queued"] == 2
        assert ask(port, "POST", path="/?max_queued=50")[1]["queued"] == 2
        assert ask(port)[1]["queued"] == 0
    assert asyncio.run(completed(store)) == 8


@SERVERS
def test_who_does_not_know_the_secret_gets_nothing(tmp_path: Path, serving: Serving) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    asyncio.run(enqueue(store, 1))
    with serving(store) as port:
        for header in (
            "",
            "Bearer",
            f"Basic {SECRET}",
            SECRET,
            f"Bearer {SECRET}x",
            f"Bearer {SECRET[:-1]}",
            "Bearer \xe9",
        ):
            status, said = ask(port, headers={"Authorization": header} if header else {})
            assert (status, said["error"]) == (401, "unauthorized")
            assert SECRET not in json.dumps(said)
        assert ask(port, "POST", headers={}, body=b"x" * 100)[0] == 401
    assert asyncio.run(completed(store)) == 0


@SERVERS
def test_what_cannot_be_a_request_is_refused_with_a_sentence(tmp_path: Path, serving: Serving) -> None:
    with serving(f"sqlite:///{tmp_path}/runs.db") as port:
        for path, says in (
            ("/?max_queued=-1", "not negative"),
            ("/?max_queued=many", "give a number"),
            ("/?max_duration=nan", "give a number"),
            ("/?owner=me", "no option 'owner'"),
        ):
            status, said = ask(port, path=path)
            assert status == 400
            assert says in said["message"]
        for body in (b"[1]", b"{", b"\xff", b"[" * 10_000, b'"x"'):
            assert ask(port, "POST", body=body)[0] == 400
        for body in (b'{"max_queued": true}', b'{"max_queued": null}', b'{"max_duration": 1e999}'):
            assert ask(port, "POST", body=body)[0] in (200, 400)
        assert ask(port, "POST", body=b" " * (MAX_BODY + 1))[0] == 413
        assert ask(port, "PUT")[0] == 405
        assert ask(port, "DELETE", headers={})[0] == 405


def test_a_store_that_is_out_is_the_services_trouble_not_the_callers(tmp_path: Path) -> None:
    host = SweepHost(lambda: Runtime(f"sqlite:///{tmp_path}/no/such/folder/runs.db"), public=True)
    answer = asyncio.run(host.answer(None, {}))
    assert answer.status == 503
    assert "no/such/folder" in answer.body["message"]


def test_sweeps_at_once_share_a_runtime_that_was_not_open_and_leave_it_closed(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    asyncio.run(enqueue(store, 20))
    runtime = Runtime(store, workflows=[doubling])
    host = SweepHost(runtime, secret=SECRET, max_queued=5)

    async def main() -> None:
        answers = await asyncio.gather(*(host.answer(f"Bearer {SECRET}", {}) for _ in range(6)))
        assert [answer.status for answer in answers] == [200] * 6
        assert sum(answer.body["queued"] for answer in answers) == 20
        assert not runtime.is_open

    asyncio.run(main())
    # On another loop, and with one that is open: it stays so.
    asyncio.run(enqueue(store, 1))

    async def open_one() -> None:
        async with runtime:
            assert (await host.answer(f"Bearer {SECRET}", {})).body["queued"] == 1
            assert runtime.is_open

    asyncio.run(open_one())
    assert asyncio.run(completed(store)) == 21


@pytest.mark.parametrize(
    "options", [{}, {"secret": "short"}, {"secret": SECRET, "public": True}, {"public": True, "owner": 1}]
)
def test_an_endpoint_that_would_be_open_by_mistake_is_refused(options: dict[str, Any]) -> None:
    for make in (asgi.sweep_app, wsgi.sweep_app):
        with pytest.raises(InvalidArgument):
            make(lambda: Runtime("memory://"), **options)


def test_the_secret_stands_nowhere() -> None:
    host = SweepHost(Runtime("memory://"), secret=SECRET)
    assert SECRET not in repr(host)


class _LambdaContext:
    """As AWS documents it: https://docs.aws.amazon.com/lambda/latest/dg/python-context.html."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.aws_request_id = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"

    def get_remaining_time_in_millis(self) -> int:
        return self.left


SCHEDULED = {
    "version": "0",
    "id": "53dc4d37-cffa-4f76-80c9-8b7d4a4d2eaa",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "123456789012",
    "time": "2015-10-08T16:53:06Z",
    "region": "us-east-1",
    "resources": ["arn:aws:events:us-east-1:123456789012:rule/my-scheduled-rule"],
    "detail": {},
}


def test_a_lambda_function_sweeps_within_its_own_time(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/runs.db"
    asyncio.run(enqueue(store, 4))
    handler = sweep_handler(lambda: Runtime(store, workflows=[doubling]), max_queued=3)
    # With less time left than closing needs nothing is begun.
    nothing = handler(SCHEDULED, _LambdaContext(1_000))
    assert (nothing["queued"], nothing["deadline_reached"]) == (0, True)
    assert handler(SCHEDULED, _LambdaContext(30_000))["queued"] == 3
    said = handler(SCHEDULED, _LambdaContext(30_000))
    assert json.loads(json.dumps(said))["queued"] == 1
    assert asyncio.run(completed(store)) == 4
