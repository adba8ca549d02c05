"""Elsewhere an event whose payload had the wrong shape failed the run that waited for it."""

import pytest
from pydantic import BaseModel

from duramen import Context, Runtime, SignalResult, workflow
from duramen.errors import EventRejected

pytestmark = pytest.mark.anyio


class Card(BaseModel):
    number: int


@workflow(name="paying", events={"card": Card})
async def declared(ctx: Context) -> int:
    return (await ctx.wait_for_event("card", Card)).number


@workflow(name="paying")
async def undeclared(ctx: Context) -> int:
    return (await ctx.wait_for_event("card", Card)).number


BAD: list[object] = [{"number": "x"}, None, [], "card", {"other": 1}]


@pytest.mark.parametrize("payload", BAD)
async def test_a_bad_payload_of_a_declared_event_is_refused_to_its_sender(payload: object) -> None:
    async with Runtime("memory://", workflows=[declared]) as runtime:
        await runtime.enqueue(declared, run_id="r")
        for _ in range(2):  # before and while it waits
            with pytest.raises(EventRejected, match="card"):
                await runtime.signal("r", "card", payload, signal_id="s")
            with pytest.raises(EventRejected):
                await runtime.signal_many([("r", "card", {"number": 1}), ("r", "card", payload)])
            await runtime.sweep()
            view = await runtime.get("r")
            assert (view.status, view.waiting_events, view.refused) == ("waiting", ("card",), ())
        # A refused signal has used nothing up, its id included.
        assert await runtime.signal("r", "card", {"number": 4}, signal_id="s") is SignalResult.DELIVERED
        await runtime.sweep()
        assert await runtime.result("r") == 4


@pytest.mark.parametrize("warm", [0, 10])
async def test_a_bad_payload_from_a_sender_without_the_code_is_set_aside_with_the_reason(
    url: str, warm: int
) -> None:
    async with Runtime(url, workflows=[undeclared], warm=warm) as runtime:
        await runtime.enqueue(undeclared, run_id="r")
        async with Runtime(url) as sender:
            await sender.signal("r", "card", BAD[0], signal_id="early")
            await runtime.sweep()
            for n, payload in enumerate(BAD[1:]):
                await sender.signal("r", "card", payload, signal_id=f"late{n}")
                await runtime.sweep()
                view = await runtime.get("r")
                assert (view.status, view.waiting_events) == ("waiting", ("card",))
            view = await runtime.get("r")
            assert [each.payload for each in view.refused] == BAD
            assert [each.signal_id for each in view.refused] == ["early", "late0", "late1", "late2", "late3"]
            assert all(each.reason for each in view.refused)
            await sender.signal("r", "card", {"number": 5})
            await runtime.sweep()
        assert await runtime.result("r", timeout=10) == 5
        # What was set aside stays readable.
        assert len((await runtime.get("r")).refused) == len(BAD)
