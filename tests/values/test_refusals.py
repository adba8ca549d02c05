"""Wherever a value goes into a run, it is looked at before anything is written."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from duramen import Context, Retry, Runtime, StepFailed, workflow
from duramen.errors import EventRejected, RunFailed, SerializationError
from tests.values.kinds import Animal, Bird, Err, Login, Ok

SECRET = Login(user="a", password=SecretStr("x"))


@workflow
async def logging_in(ctx: Context, login: Login) -> None:
    await ctx.wait_for_event("go")


@workflow
async def untyped(ctx: Context, value: Any) -> Any:
    return value


@workflow(events={"seen": Animal})
async def watching(ctx: Context) -> list[str]:
    animal = await ctx.wait_for_event("seen", Animal)
    answer = await ctx.wait_for_event("answer", Ok)
    return [animal.name, answer.text]


ran: list[str] = []


async def answer() -> Ok | Err:
    ran.append("answer")
    return Err(text="no")


@workflow
async def asking(ctx: Context) -> str:
    try:
        await ctx.step("answer", answer, retry=Retry(attempts=5))
    except StepFailed as error:
        return str(error)
    return "an Ok"


@workflow
async def returning(ctx: Context) -> Animal:
    return Bird(name="x")


ALL = [logging_in, untyped, watching, asking, returning]


def test_inputs_and_memos_are_refused_and_no_run_is_made() -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL) as runtime:
            for call, path in (
                (lambda: runtime.start(logging_in, SECRET), "$.password"),
                (lambda: runtime.enqueue(untyped, {"at": datetime.now(UTC)}), "$.at"),
                (lambda: runtime.run(untyped, {1: "a", "1": "b"}), "$"),
                (lambda: runtime.start(untyped, 1, memo={"who": ("a", 1)}), "$.who"),
                (lambda: runtime.enqueue_many([(untyped, 1), (untyped, [10**5000])]), "$[0]"),
            ):
                with pytest.raises(SerializationError) as caught:
                    await call()
                assert caught.value.path == path
            assert await runtime.count() == 0

    asyncio.run(main())


def test_messages_go_by_the_declared_type_or_by_their_own() -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL) as runtime:
            await runtime.run(watching, run_id="r")
            with pytest.raises(EventRejected, match="declare it as Bird"):
                await runtime.signal("r", "seen", Bird(name="x"))
            for payload in (SECRET, [Ok(text="x")], {"at": datetime.now(UTC)}):
                with pytest.raises(SerializationError):
                    await runtime.signal("r", "answer", payload)
            assert (await runtime.get("r")).unread == 0
            await runtime.signal("r", "seen", {"name": "wren"})
            await runtime.signal("r", "answer", Ok(text="yes"), drive=True)
            assert await runtime.result("r", 10) == ["wren", "yes"]

    asyncio.run(main())


def test_results_are_refused_where_they_arise_and_not_tried_again() -> None:
    async def main() -> None:
        ran.clear()
        async with Runtime("memory://", workflows=ALL) as runtime:
            told = await (await runtime.start(asking)).result(10)
            assert "the JSON of an Err reads as an Ok" in told
            assert ran == ["answer"]
            with pytest.raises(RunFailed, match="declare it as Bird"):
                await (await runtime.start(returning)).result(10)

    asyncio.run(main())
