"""Steps. Frozen: histories that released versions wrote must replay with this code, so it is never edited."""

import time
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict

from duramen import (
    CodecSerializer,
    Context,
    Fatal,
    JsonSerializer,
    Retry,
    StepFailed,
    step,
    step_context,
    workflow,
)
from tests.histories.case import play_to_the_end


class Size(Enum):
    SMALL = "S"
    LARGE = "L"


class Parcel(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    order: str
    size: Size
    price: Decimal
    packed: datetime
    label: bytes


async def pack(order: str) -> Parcel:
    return Parcel(
        order=order,
        size=Size.LARGE,
        price=Decimal("19.90"),
        packed=datetime(2026, 1, 1, tzinfo=UTC),
        label=b"\xff\x00",
    )


async def send(parcel: Parcel) -> str:
    return f"sent {parcel.order} ({parcel.size.value}, {parcel.price}, {parcel.label!r})"


async def broken() -> None:
    raise KeyError("card")


@workflow
async def step_ok(ctx: Context, order: str) -> str:
    return await ctx.step("send", send, await ctx.step("pack", pack, order))


play_to_the_end(step_ok, "order:1")


@workflow
async def step_failed(ctx: Context) -> str:
    try:
        await ctx.step("broken", broken)
    except StepFailed as error:
        told = f"{error.operation_id} {error.attempts} {error.error.type_name} {error.__cause__!r}"
    await ctx.step("after", pack, "order:2")
    return told


play_to_the_end(step_failed)


@step(retry=Retry(attempts=4, backoff="exponential", base=0.01, jitter=True))
async def third_time() -> int:
    attempt = step_context().attempt
    if attempt < 3:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


@workflow
async def step_retried(ctx: Context) -> int:
    return await third_time()


play_to_the_end(step_retried)


@workflow
async def step_retried_in_vain(ctx: Context) -> str:
    try:
        await ctx.step("broken", broken, retry=Retry(attempts=3, backoff="linear", base=0.01))
    except StepFailed as error:
        return f"{error.attempts} attempts"
    return "never"


play_to_the_end(step_retried_in_vain)


@step(retry=Retry(attempts=2, backoff="constant", base=1.5))
async def second_time() -> int:
    if step_context().attempt < 2:
        raise ConnectionError("not yet")
    return 2


@workflow
async def step_retried_after_a_pause(ctx: Context) -> int:
    """The back-off is so long that the run is released meanwhile."""
    return await second_time()


play_to_the_end(step_retried_after_a_pause)


async def fatal() -> None:
    raise Fatal("no use")


@workflow(retry=Retry(attempts=5, base=0.01))
async def step_fatal(ctx: Context) -> str:
    try:
        await ctx.step("fatal", fatal)
    except StepFailed as error:
        return f"{error.attempts} {error.error.short_name}"
    return "never"


play_to_the_end(step_fatal)


async def count(number: int) -> int:
    return number + 1


@workflow
async def step_lazy(ctx: Context) -> int:
    number = 0
    for _ in range(3):
        number = await ctx.step("count", count, number, checkpoint="lazy")
    return await ctx.step("count", count, number)


play_to_the_end(step_lazy)


@workflow
async def step_ids_repeated(ctx: Context) -> list[int]:
    found: list[int] = []
    for number in range(3):
        found.append(await ctx.step("count", count, number))
        found.append(await ctx.step("double", count, found[-1]))
    return found


play_to_the_end(step_ids_repeated)


def blocking(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


async def endless() -> None:
    import asyncio

    await asyncio.sleep(60)


@workflow
async def step_timeout(ctx: Context) -> str:
    await ctx.step("blocking", blocking, 0.001)
    try:
        await ctx.step("endless", endless, timeout=0.01)
    except TimeoutError as error:
        return type(error).__name__
    return "never"


play_to_the_end(step_timeout)


async def opaque() -> Any:
    return object()


@workflow(retry=Retry(attempts=5, base=0.01))
async def step_unserialisable(ctx: Context) -> str:
    try:
        await ctx.step("opaque", opaque)
    except StepFailed as error:
        return f"{error.attempts} {error.error.short_name}"
    return "never"


play_to_the_end(step_unserialisable)


class Deflate:
    """A codec, so that the payloads are no text."""

    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)


@workflow
async def step_with_codec(ctx: Context, order: str) -> str:
    parcel = await ctx.step("pack", pack, order)
    try:
        await ctx.step("broken", broken)
    except StepFailed as error:
        return f"{parcel.size.value} {error.error.type_name}"
    return "never"


play_to_the_end(step_with_codec, "order:3", serializer=CodecSerializer(JsonSerializer(), Deflate()))
