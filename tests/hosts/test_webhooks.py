"""Webhooks: what senders sign, what attackers repeat and change, and what becomes of it in a run."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duramen import Context, Runtime, workflow
from duramen.errors import InvalidArgument
from duramen.hosts.webhooks import (
    BadDelivery,
    Delivery,
    GitHub,
    Scheme,
    Signal,
    StandardWebhooks,
    Start,
    Stripe,
    webhook_app,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "whsec_" + base64.b64encode(b"a standard key of 24 b..").decode()
NOW = 1_700_000_000
BODY = b'{"id": "evt_1", "type": "paid", "run": "r"}'

Headers = dict[str, str]


def github(body: bytes, at: int = NOW, secret: str = "s3cret") -> Headers:
    del at
    return {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def stripe(body: bytes, at: int = NOW, secret: str = "s3cret") -> Headers:
    signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={at},v1={signature},v0=6ffbb59b2300aae63f272406069a9788598b792a"}


def standard(body: bytes, at: int = NOW, secret: str = KEY) -> Headers:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(
        hmac.new(key, f"msg_1.{at}.".encode() + body, hashlib.sha256).digest()
    ).decode()
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(at),
        "webhook-signature": f"v1,b3RoZXI= v2,x v1,{signature}",
    }


SCHEMES: list[tuple[Scheme, Callable[..., Headers]]] = [
    (GitHub("s3cret"), github),
    (Stripe("s3cret"), stripe),
    (StandardWebhooks(KEY), standard),
]
EACH = pytest.mark.parametrize(("scheme", "sign"), SCHEMES)


def test_examples_that_senders_publish() -> None:
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    secret = "It's a Secret to Everybody"
    assert GitHub(secret).verified({"x-hub-signature-256": signature}, b"Hello, World!")
    # https://github.com/standard-webhooks/standard-webhooks, the test vector of its libraries
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    scheme = StandardWebhooks("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = scheme.verified(headers, b'{"test": 2432232314}', now=1614265330)
    assert found.id == "msg_p5jXN8AQM9LWM0D4loKWxJek"


@EACH
def test_what_the_sender_signed_is_known_again(scheme: Scheme, sign: Callable[..., Headers]) -> None:
    first = scheme.verified(sign(BODY), BODY, now=NOW)
    again = scheme.verified(sign(BODY, NOW + 60), BODY, now=NOW + 60)
    assert (first.id, first.body) == (again.id, BODY)
    assert first.json()["type"] == "paid"


@EACH
def test_a_change_of_what_is_signed_is_refused(scheme: Scheme, sign: Callable[..., Headers]) -> None:
    headers = sign(BODY)
    for place in range(len(BODY)):
        changed = BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :]
        with pytest.raises(BadDelivery):
            scheme.verified(headers, changed, now=NOW)
    for name, value in headers.items():
        with pytest.raises(BadDelivery):
            scheme.verified({**headers, name: ""}, BODY, now=NOW)
        with pytest.raises(BadDelivery):
            scheme.verified({key: each for key, each in headers.items() if key != name}, BODY, now=NOW)
        if "signature" not in name:
            with pytest.raises(BadDelivery):
                scheme.verified({**headers, name: value + "1"}, BODY, now=NOW)


@EACH
@given(header=st.text(max_size=60), body=st.binary(max_size=60))
def test_nobody_gets_in_without_the_secret(
    scheme: Scheme, sign: Callable[..., Headers], header: str, body: bytes
) -> None:
    with pytest.raises(BadDelivery):
        scheme.verified(dict.fromkeys(sign(BODY), header), body, now=NOW)


@pytest.mark.parametrize(("scheme", "sign"), SCHEMES[1:])
def test_what_is_old_or_of_the_future_is_refused(scheme: Scheme, sign: Callable[..., Headers]) -> None:
    for at in (NOW - 301, NOW + 301):
        with pytest.raises(BadDelivery, match="301 s away"):
            scheme.verified(sign(BODY, at), BODY, now=NOW)
    assert scheme.verified(sign(BODY, NOW - 299), BODY, now=NOW)


@pytest.mark.parametrize(("make", "sign"), [(GitHub, github), (Stripe, stripe), (StandardWebhooks, standard)])
def test_secrets_are_changed_by_having_both_for_a_while(make: Any, sign: Callable[..., Headers]) -> None:
    old, new = (KEY, "whsec_bmV3IGtleQ==") if make is StandardWebhooks else ("old", "new")
    both = make([new, old])
    for secret in (old, new):
        assert both.verified(sign(BODY, NOW, secret), BODY, now=NOW)
    with pytest.raises(BadDelivery):
        make([new]).verified(sign(BODY, NOW, old), BODY, now=NOW)
    for nothing in ("", [], ["", new]):
        with pytest.raises(InvalidArgument):
            make(nothing)


def test_a_secret_that_is_no_base64_is_refused_without_being_shown() -> None:
    with pytest.raises(InvalidArgument, match="base64") as caught:
        StandardWebhooks("whsec_not base64!")
    assert "not base64!" not in str(caught.value)


# -- in a run


@workflow
async def collecting(ctx: Context) -> list[str]:
    return [await ctx.wait_for_event("paid", str) for _ in range(2)]


@workflow
async def greeting(ctx: Context, name: str) -> str:
    return await ctx.step("greet", "hello {}".format, name)


def route(delivery: Delivery) -> Signal | Start | None:
    event = delivery.json()
    if "start" in event:
        return Start(greeting, event["start"], event.get("run"))
    return Signal(event["run"], "paid", event["id"]) if "run" in event else None


async def post(app: Any, body: bytes, headers: Headers, method: str = "POST") -> tuple[int, dict[str, Any]]:
    """A request as a server hands it over, in two parts."""
    scope = {
        "type": "http",
        "method": method,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
        "query_string": b"",
    }
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    said: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    return said[0]["status"], json.loads(said[1]["body"])


def test_deliveries_reach_runs_once_each(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path}/runs.db"
        async with Runtime(url, workflows=[collecting, greeting], work=True) as runtime:
            app = webhook_app(runtime, GitHub("s3cret"), route, max_body=1000)

            async def deliver(event: Any, **changes: Any) -> tuple[int, str]:
                body = json.dumps(event).encode()
                status, said = await post(app, body, changes.get("headers", github(body)))
                return status, said.get("outcome") or said["error"]

            assert await deliver({"run": "r", "id": "a"}) == (404, "not_found")
            run = await runtime.start(collecting, run_id="r")
            for expected in ("delivered", "duplicate", "duplicate"):
                assert (await deliver({"run": "r", "id": "a"}))[0] == 200, expected
            assert (await runtime.get("r")).status in ("waiting", "running")
            assert (await deliver({"run": "r", "id": "b"}))[0] == 200
            assert await run.result(timeout=20) == ["a", "b"]
            assert await deliver({"run": "r", "id": "c"}) == (202, "finished")
            assert await deliver({"other": 1}) == (202, "ignored")
            # A run, once, with an id of its own or of the delivery.
            assert await deliver({"start": "you", "run": "g"}) == (200, "started")
            assert await deliver({"start": "you", "run": "g"}) == (200, "duplicate")
            assert await runtime.result("g", timeout=20) == "hello you"
            assert await deliver({"start": "they"}) == (200, "started")
            assert await deliver({"start": "they"}) == (200, "duplicate")
            assert await deliver({"start": "x", "run": "r"}) == (409, "conflict")
            assert await runtime.count(workflow="greeting") == 2
            # Forged, no JSON, too long, not a POST.
            assert await deliver({"run": "r", "id": "d"}, headers=github(b"other")) == (400, "bad delivery")
            assert (await post(app, b"{", github(b"{")))[0] == 400
            assert (await post(app, b"x" * 1001, {}))[0] == 413
            assert (await post(app, b"", {}, "GET"))[0] == 405

    asyncio.run(main())
