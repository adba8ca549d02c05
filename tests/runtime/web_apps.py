"""Web applications as people write them around a runtime, for `uvicorn tests.runtime.web_apps:NAME`."""

import asyncio
import os
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from duramen import Runtime
from tests.runtime.workflows import ALL, adding, many

STORE = os.environ.get("WEB_APPS_STORE", "memory://")


@asynccontextmanager
async def works() -> Any:
    async with Runtime(STORE, workflows=ALL, work=True) as runtime:
        yield runtime


@asynccontextmanager
async def in_a_task() -> Any:
    async with Runtime(STORE, workflows=ALL) as runtime:
        work = asyncio.create_task(runtime.work())
        yield runtime
        work.cancel()
        await asyncio.wait([work])


class App:
    """An ASGI application: its lifespan has a runtime, each request makes a run of it."""

    def __init__(self, lifespan: Any) -> None:
        self._lifespan = lifespan
        self._runtime: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._live(self._lifespan(), receive, send)
            return
        run = await self._runtime.enqueue(many, 200, run_id=scope["path"].strip("/"))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": run.run_id.encode()})

    async def _live(self, lifespan: AbstractAsyncContextManager[Any], receive: Any, send: Any) -> None:
        await receive()
        async with lifespan as self._runtime:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


app_that_works = App(works)
app_with_a_task = App(in_a_task)


def django() -> Any:
    """A Django application; its runtime is opened by whatever view calls it first, by the façade or not."""
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    runtime = Runtime(STORE, workflows=ALL)

    async def awaiting(_request: HttpRequest, number: int) -> HttpResponse:
        run = await runtime.start(adding, number)
        kinds = [event.kind async for event in runtime.events(run.run_id)]
        return HttpResponse(f"{await run.result(10)} {kinds[-1]}")

    def blocking(_request: HttpRequest, number: int) -> HttpResponse:
        return HttpResponse(f"{runtime.sync.start(adding, number).result(10)}")

    settings.configure(
        ROOT_URLCONF=type(
            "Urls", (), {"urlpatterns": [path("a/<int:number>", awaiting), path("b/<int:number>", blocking)]}
        ),
        ALLOWED_HOSTS=["*"],
        SECRET_KEY="of a test",
    )
    return get_asgi_application()
