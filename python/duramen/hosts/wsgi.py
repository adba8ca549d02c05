"""A sweep endpoint for WSGI servers and frameworks (gunicorn, Flask, Django, mod_wsgi …)."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from .sweeping import MAX_BODY, Answer, SweepHost, body_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from typing_extensions import Unpack

    from duramen import Runtime

    from .sweeping import Budget

__all__ = ["sweep_app"]


def sweep_app(
    runtime: Runtime | Callable[[], Runtime],
    *,
    secret: str | None = None,
    public: bool = False,
    **budget: Unpack[Budget],
) -> Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]:
    """Make a WSGI application of which every GET and POST is one sweep. See `duramen.hosts.asgi.sweep_app`.

    Each sweep has an event loop of its own for as long as it takes; servers with several threads need a
    function that makes a runtime: ``sweep_app(lambda: Runtime(…), …)``.

    Raises:
        InvalidArgument: as `SweepHost`.

    >>> from duramen import Runtime
    >>> app = sweep_app(lambda: Runtime("memory://"), secret="a-secret-of-some-length", max_duration=20)
    """
    host = SweepHost(runtime, secret=secret, public=public, **budget)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = _answer(host, environ)
        body = answer.encoded()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", headers)
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    return app


def _answer(host: SweepHost, environ: WSGIEnvironment) -> Answer:
    if environ["REQUEST_METHOD"] not in {"GET", "POST"}:
        return Answer(405, {"error": "method not allowed", "message": "use GET or POST"})
    authorization = environ.get("HTTP_AUTHORIZATION")
    asked: dict[str, Any] = {}
    if host.may(authorization):
        asked.update(parse_qsl(environ.get("QUERY_STRING", "")))
        if environ["REQUEST_METHOD"] == "POST":
            length = environ.get("CONTENT_LENGTH") or "0"
            if not length.isdecimal() or int(length) > MAX_BODY:
                return Answer(413, {"error": "too long", "message": f"send {MAX_BODY} bytes at the most"})
            found = body_options(environ["wsgi.input"].read(int(length)))
            if isinstance(found, Answer):
                return found
            asked.update(found)
    return asyncio.run(host.answer(authorization, asked))
