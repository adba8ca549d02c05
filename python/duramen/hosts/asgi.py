"""A sweep endpoint for ASGI servers, frameworks and platforms (uvicorn, FastAPI, Django, Vercel …)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from .sweeping import MAX_BODY, Answer, SweepHost, body_options

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from typing_extensions import Unpack

    from duramen import Runtime

    from .sweeping import Budget

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["read_body", "sweep_app"]


def sweep_app(
    runtime: Runtime | Callable[[], Runtime],
    *,
    secret: str | None = None,
    public: bool = False,
    **budget: Unpack[Budget],
) -> Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]:
    """Make an ASGI application of which every GET and POST is one sweep.

    A cron service calls it with the header ``Authorization: Bearer SECRET``; the query, or a POST's JSON, may
    make the budget smaller (``?max_duration=5&max_queued=10``). It answers what was done, as JSON. Mount it
    where you like: its path does not matter.

    Args:
        runtime: see `duramen.hosts.sweeping.SweepHost`, as for all the others.
        secret: what callers have to bring.
        public: say that everybody may sweep.
        budget: the most that a request may have: ``max_duration=20`` and so on.

    Raises:
        InvalidArgument: as `SweepHost`.

    >>> from duramen import Runtime
    >>> app = sweep_app(Runtime("memory://"), secret="a-secret-of-some-length", max_duration=20)
    """
    host = SweepHost(runtime, secret=secret, public=public, **budget)

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            answer = await _answer(host, scope, receive)
            body = answer.encoded()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
            ]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        else:
            raise ValueError(f"a sweep endpoint does not speak {scope['type']!r}")

    return app


async def read_body(receive: Receive, most: int) -> bytes | None:
    """The body of a request; None if it is longer than that."""
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def _live(receive: Receive, send: Send) -> None:
    """Nothing is to be done at the beginning and the end: runtimes belong to who made them."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _answer(host: SweepHost, scope: MutableMapping[str, Any], receive: Receive) -> Answer:
    if scope["method"] not in {"GET", "POST"}:
        return Answer(405, {"error": "method not allowed", "message": "use GET or POST"})
    headers = {name.lower(): value for name, value in scope["headers"]}
    raw = headers.get(b"authorization")
    authorization = None if raw is None else raw.decode("latin-1")
    if not host.may(authorization):
        return await host.answer(authorization, {})  # before its body is read
    asked: dict[str, Any] = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    if scope["method"] == "POST":
        body = await read_body(receive, MAX_BODY)
        if body is None:
            return Answer(413, {"error": "too long", "message": f"send {MAX_BODY} bytes at the most"})
        found = body_options(body)
        if isinstance(found, Answer):
            return found
        asked.update(found)
    return await host.answer(authorization, asked)
