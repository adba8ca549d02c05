"""What the servers of these tests serve."""

import os

from duramen import Context, Runtime, workflow
from duramen.hosts import asgi, wsgi

SECRET = "a-secret-of-some-length"
STORE = os.environ.get("HOSTS_STORE", "memory://")


@workflow
async def doubling(ctx: Context, number: int) -> int:
    return await ctx.step("double", (2).__mul__, number)


def runtime() -> Runtime:
    return Runtime(STORE, workflows=[doubling])


asgi_app = asgi.sweep_app(runtime, secret=SECRET, max_queued=3, max_duration=20)
wsgi_app = wsgi.sweep_app(runtime, secret=SECRET, max_queued=3, max_duration=20)
