"""Random programs over everything asyncio and anyio offer, as trees that print well and run on a `Driver`."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio

from tests.loop.driver import Driver

Node = tuple[Any, ...]
KINDS = (
    *("seq", "gather", "group", "first", "all_wait", "completed", "shield", "timeout", "wait_for", "cancel"),
    *("finally", "catch", "queue", "lock", "event", "agen", "semaphore", "condition", "barrier"),
    *("anyio_group", "move_on", "fail_after", "stream", "anyio_scope"),
)


def make(rng: random.Random, depth: int) -> Node:
    """A program; the same for the same state of the random generator."""
    if depth == 0 or rng.random() < 0.15:
        kind = rng.choice(["op", "op", "op", "sleep", "fail", "yield"])
        return (kind, rng.randrange(1, 4))
    kind = rng.choice(KINDS)
    return (kind, rng.randrange(1, 4), *(make(rng, depth - 1) for _ in range(rng.randrange(1, 4))))


class Boom(Exception):
    pass


@dataclass
class Machine:
    driver: Driver

    async def run(self, node: Node) -> Any:
        return await getattr(self, "do_" + node[0])(node[1], node[2:])

    async def do_op(self, number: int, parts: tuple[Node, ...]) -> Any:
        return await self.driver.op(f"op{number}")

    async def do_sleep(self, number: int, parts: tuple[Node, ...]) -> None:
        await asyncio.sleep(number)

    async def do_yield(self, number: int, parts: tuple[Node, ...]) -> None:
        for _ in range(number):
            await asyncio.sleep(0)

    async def do_fail(self, number: int, parts: tuple[Node, ...]) -> None:
        await self.driver.op(f"fail{number}", Boom)

    async def do_seq(self, number: int, parts: tuple[Node, ...]) -> None:
        for part in parts:
            await self.run(part)

    async def do_gather(self, number: int, parts: tuple[Node, ...]) -> Any:
        return await asyncio.gather(*map(self.run, parts), return_exceptions=number == 1)

    async def do_group(self, number: int, parts: tuple[Node, ...]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for part in parts:
                    group.create_task(self.run(part))
        except* Boom as errors:
            self.driver.note("group", [str(error) for error in errors.exceptions])

    async def do_first(self, number: int, parts: tuple[Node, ...]) -> None:
        tasks = {asyncio.create_task(self.run(part)) for part in parts}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        self.driver.note("first", [task.get_name() for task in done], [task.get_name() for task in pending])
        for task in pending:
            task.cancel()
        for task in (*done, *pending):
            await asyncio.wait([task])
            self.driver.note("ended", task.get_name(), task.cancelled() or repr(task.exception()))

    async def do_all_wait(self, number: int, parts: tuple[Node, ...]) -> None:
        tasks = [asyncio.create_task(self.run(part)) for part in parts]
        done, pending = await asyncio.wait(tasks, timeout=number)
        for task in pending:
            task.cancel()
        await asyncio.gather(*done, *pending, return_exceptions=True)

    async def do_completed(self, number: int, parts: tuple[Node, ...]) -> None:
        for next_one in asyncio.as_completed([self.run(part) for part in parts], timeout=number * 2):
            try:
                self.driver.note("completed", repr(await next_one))
            except (Boom, TimeoutError) as error:
                self.driver.note("completed", repr(error))

    async def do_shield(self, number: int, parts: tuple[Node, ...]) -> Any:
        inner = asyncio.create_task(self.run(parts[0]))
        try:
            return await asyncio.shield(inner)
        except asyncio.CancelledError:
            await asyncio.wait([inner])
            self.driver.note("shielded", inner.cancelled() or repr(inner.exception()))
            raise

    async def do_timeout(self, number: int, parts: tuple[Node, ...]) -> None:
        try:
            async with asyncio.timeout(number):
                await self.do_seq(number, parts)
        except TimeoutError:
            self.driver.note("timeout")

    async def do_wait_for(self, number: int, parts: tuple[Node, ...]) -> None:
        try:
            await asyncio.wait_for(self.do_seq(number, parts), number)
        except TimeoutError:
            self.driver.note("wait_for")

    async def do_cancel(self, number: int, parts: tuple[Node, ...]) -> None:
        task = asyncio.create_task(self.do_seq(number, parts))
        await asyncio.sleep(number)
        task.cancel()
        try:
            await task
        except (asyncio.CancelledError, Boom) as error:
            self.driver.note("cancel", type(error).__name__)  # anyio puts an address into its text

    async def do_finally(self, number: int, parts: tuple[Node, ...]) -> None:
        try:
            await self.run(parts[0])
        finally:
            self.driver.note("finally")
            await self.driver.op("clean")

    async def do_catch(self, number: int, parts: tuple[Node, ...]) -> None:
        try:
            await self.do_seq(number, parts)
        except Exception as error:  # noqa: BLE001
            self.driver.note("caught", type(error).__name__)

    async def do_queue(self, number: int, parts: tuple[Node, ...]) -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)

        async def put(index: int, part: Node) -> None:
            try:
                await self.run(part)
            finally:
                await queue.put(index)

        tasks = [asyncio.create_task(put(*item)) for item in enumerate(parts)]
        for _ in parts:
            self.driver.note("queue", await queue.get())
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _each(self, parts: tuple[Node, ...], guard: Any) -> None:
        async def one(index: int, part: Node) -> None:
            async with guard:
                self.driver.note("in", index)
                await self.run(part)

        await asyncio.gather(*(one(*item) for item in enumerate(parts)), return_exceptions=True)

    async def do_lock(self, number: int, parts: tuple[Node, ...]) -> None:
        await self._each(parts, asyncio.Lock())

    async def do_semaphore(self, number: int, parts: tuple[Node, ...]) -> None:
        await self._each(parts, asyncio.Semaphore(number))

    async def do_event(self, number: int, parts: tuple[Node, ...]) -> None:
        event = asyncio.Event()

        async def waiter(index: int) -> None:
            await event.wait()
            self.driver.note("event", index)

        waiters = [asyncio.create_task(waiter(index)) for index in range(number)]
        try:
            await self.run(parts[0])
        finally:
            event.set()
        await asyncio.gather(*waiters)

    async def do_condition(self, number: int, parts: tuple[Node, ...]) -> None:
        condition = asyncio.Condition()
        ready: list[int] = []

        async def waiter(index: int) -> None:
            async with condition:
                await condition.wait_for(lambda: len(ready) > index)
                self.driver.note("condition", index)

        waiters = [asyncio.create_task(waiter(index)) for index in range(number)]
        for index in range(number):
            try:
                await self.run(parts[index % len(parts)])
            finally:
                ready.append(index)
                async with condition:
                    condition.notify_all()
        await asyncio.gather(*waiters)

    async def do_barrier(self, number: int, parts: tuple[Node, ...]) -> None:
        barrier = asyncio.Barrier(len(parts))

        async def one(part: Node) -> None:
            try:
                await self.run(part)
            finally:
                self.driver.note("barrier", await barrier.wait())

        await asyncio.gather(*map(one, parts), return_exceptions=True)

    async def do_agen(self, number: int, parts: tuple[Node, ...]) -> None:
        async def generate() -> AsyncIterator[int]:
            try:
                for index, part in enumerate(parts):
                    await self.run(part)
                    yield index
            finally:
                self.driver.note("generator ends")

        async for index in generate():
            self.driver.note("generated", index)
            if index + 1 == number:
                break

    async def do_anyio_group(self, number: int, parts: tuple[Node, ...]) -> None:
        try:
            async with anyio.create_task_group() as group:
                for part in parts:
                    group.start_soon(self.run, part)
        except* Boom as errors:
            self.driver.note("anyio group", sorted(str(error) for error in errors.exceptions))

    async def do_move_on(self, number: int, parts: tuple[Node, ...]) -> None:
        with anyio.move_on_after(number) as scope:
            await self.do_seq(number, parts)
        self.driver.note("moved on", scope.cancelled_caught)

    async def do_fail_after(self, number: int, parts: tuple[Node, ...]) -> None:
        try:
            with anyio.fail_after(number):
                await self.do_seq(number, parts)
        except TimeoutError:
            self.driver.note("fail after")

    async def do_anyio_scope(self, number: int, parts: tuple[Node, ...]) -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                for part in parts:
                    group.start_soon(self.do_catch, number, (part,))
                await anyio.sleep(number)
                scope.cancel()
        with anyio.CancelScope(shield=True):
            await self.driver.op("shielded")

    async def do_stream(self, number: int, parts: tuple[Node, ...]) -> None:
        send, receive = anyio.create_memory_object_stream[int](number)

        async def produce() -> None:
            async with send:
                for index, part in enumerate(parts):
                    await self.do_catch(number, (part,))
                    await send.send(index)

        async with anyio.create_task_group() as group, receive:
            group.start_soon(produce)
            async for index in receive:
                self.driver.note("received", index)


def program(seed: int, depth: int = 3) -> Node:
    """The program of a seed."""
    return make(random.Random(seed), depth)
