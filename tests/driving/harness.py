"""The smallest runtime there can be: one engine, one host loop, run hosts by ticket.

The product's own runtime has calls, checks and a life cycle; these tests want the layer below it, so that a
failure here says where it is.
"""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any, Self

from duramen._bridge import (
    Advance,
    Detail,
    Drive,
    Engine,
    Evict,
    Lost,
    Reply,
    Resume,
    native_error,
)
from duramen._driving.host import RunHost
from duramen._driving.services import Services
from duramen._driving.stepper import Stepper
from duramen._values.payloads import load_recorded
from duramen._values.serializer import JsonSerializer, Serializer

_owners = itertools.count(1)


@dataclass
class Ending:
    status: str
    output: Any
    error: Any
    detail: Detail


@dataclass
class Harness:
    scheme: str = "memory"
    location: str = ""
    warm: int = 1000
    serializer: Serializer = field(default_factory=JsonSerializer)
    services: Any = None

    async def __aenter__(self) -> Self:
        self.loop = asyncio.get_running_loop()
        self.hosts: dict[int, RunHost] = {}
        self.all_hosts: list[RunHost] = []
        self.emitted: list[tuple[str, str, Any]] = []
        self.driven: list[tuple[str, str]] = []
        self.workflows: dict[tuple[str, str], Any] = {}
        self.touched: set[RunHost] = set()
        self.replies: dict[int, asyncio.Future[Any]] = {}
        self.tokens = itertools.count(1)
        self.errors: list[BaseException] = []
        self.engine = Engine(
            self.scheme,
            self.location,
            owner=f"harness-{next(_owners)}",
            lease=30_000,
            hold=0,
            warm=self.warm,
            wake_fd=None,
            wake=lambda: self.loop.call_soon_threadsafe(self.drain),
            options={"migrate": True, "synchronous": "normal"} if self.scheme == "sqlite" else {},
        )
        self.services = Services(
            stepper=Stepper(self.loop),
            serializer=self.serializer,
            touched=self.touch,
            emit=lambda run_id, name, value: self.emitted.append((run_id, name, value)),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for host in self.all_hosts:
            host.evict()
        await self.services.stepper.aclose()
        await self.call("close")

    def register(self, *definitions: Any) -> None:
        for definition in definitions:
            self.workflows[definition.name, definition.version] = definition
        self.engine.register(list(self.workflows))

    def touch(self, host: RunHost) -> None:
        if not self.touched:
            self.loop.call_soon(self.advance_touched)
        self.touched.add(host)

    def advance_touched(self) -> None:
        touched, self.touched = self.touched, set()
        for host in touched:
            host.advance()
        self.engine.flush()

    def drain(self) -> None:
        for event in self.engine.drain():
            self.dispatch(event)
        self.engine.flush()

    def dispatch(self, event: Any) -> None:
        match event:
            case Reply(token, value, error):
                future = self.replies.pop(token)
                if future.done():
                    return
                if error is None:
                    future.set_result(value)
                else:
                    future.set_exception(native_error(error))
            case Drive(ticket, run):
                definition = self.workflows[run.workflow, run.version]
                self.hosts[ticket] = host = RunHost(run, definition, self.services)
                self.all_hosts.append(host)
                host.start()
            case Resume(ticket) | Advance(ticket, None):
                self.hosts[ticket].advance()
            case Advance(ticket, driven):
                host = self.hosts[ticket]
                host.ended(driven)
                self.driven.append((host.run.run_id, driven))
            case Evict(ticket) | Lost(ticket):
                self.hosts.pop(ticket).evict()
            case _:
                raise AssertionError(event)

    async def call(self, name: str, *args: Any) -> Any:
        token = next(self.tokens)
        self.replies[token] = future = self.loop.create_future()
        getattr(self.engine, name)(token, *args)
        return await asyncio.wait_for(future, 20)

    async def start(
        self, definition: Any, value: Any = None, run_id: str = "r", timeout: int | None = None
    ) -> None:
        self.register(definition)
        data = self.serializer.dumps(value, definition.input_type)
        await self.call(
            "start", run_id, definition.name, definition.version, data, list(definition.tags), None,
            timeout if timeout is not None else definition.timeout_ms,
        )  # fmt: skip

    def work(self) -> None:
        self.engine.work(100, 5, 50)

    async def event(self, name: str, payload: Any, run_id: str = "r", message_id: str | None = None) -> str:
        message_id = message_id or f"m{next(self.tokens)}"
        message = (run_id, message_id, "event", name, self.serializer.dumps(payload), None)
        return (await self.call("deliver", [message]))[0].result

    async def decide(self, approval_id: str, decision: Any, run_id: str = "r") -> str:
        message = (
            run_id,
            f"approval:{approval_id}",
            "approval",
            approval_id,
            self.serializer.dumps(decision),
            None,
        )
        return (await self.call("deliver", [message]))[0].result

    async def cancel(self, reason: str = "", run_id: str = "r") -> None:
        message = (run_id, f"c{next(self.tokens)}", "cancel", "", self.serializer.dumps(reason), None)
        await self.call("deliver", [message])

    async def detail(self, run_id: str = "r") -> Detail:
        return (await self.call("get", [run_id]))[0]

    async def until(self, *statuses: str, run_id: str = "r", seconds: float = 15) -> Ending:
        end = self.loop.time() + seconds
        while True:
            detail = await self.detail(run_id)
            if detail.row.status in statuses:
                break
            if self.loop.time() > end:
                raise AssertionError(f"still {detail}")
            await asyncio.sleep(0.005)
        status = detail.row.status
        payload = b"" if detail.end is None else detail.end.payload
        output = self.serializer.loads(payload) if status == "completed" else None
        error = load_recorded(self.serializer, payload) if status == "failed" else None
        return Ending(status, output, error, detail)

    async def end(self, run_id: str = "r") -> Ending:
        return await self.until("completed", "failed", "cancelled", "stuck", "terminated", run_id=run_id)

    async def story(self, run_id: str = "r") -> list[str]:
        entries = await self.call("load", run_id, 0, 10_000)
        return [f"{entry.kind} {entry.op}".strip() for entry in entries]
