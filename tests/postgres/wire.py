"""A wire that fails: a TCP proxy before a Postgres server that knows where requests and answers end.

A request is what a client sends up to a Sync or a simple Query, an answer what comes back up to
ReadyForQuery. The proxy has a thread and an event loop of its own, so that a test may block.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

Side = Literal["before", "after"]

# What a client may send instead of a start-up message; the answer is one byte, or nothing.
ENCRYPTION = (80877103, 80877104)


class Lost(Exception):
    """The connection is cut."""


class Connection:
    """One connection through the proxy; the numbers of its requests are those of all connections together."""

    def __init__(self, wire: "Wire", client: "Peer", server: "Peer") -> None:
        self.wire, self.client, self.server = wire, client, server
        self.numbers: list[int] = []
        self.answered = 0
        self.statements: dict[str, str] = {}
        self.texts: list[str] = []
        self.vanished = False

    async def up(self) -> None:
        """From the client to the server."""
        request = bytearray()
        while True:
            kind, message = await self.client.message()
            self._note(kind, message)
            request += message
            if kind in b"SQ":
                number = self.wire.begin(" ; ".join(self.texts))
                self.texts.clear()
                if self.wire.cuts(number, "before"):
                    raise Lost
                self.numbers.append(number)
            if kind not in b"PBDEC":  # these have no answer before the Sync that follows them
                await self._pass(self.server, request)
                request.clear()

    async def down(self) -> None:
        """From the server to the client. The first answer is that to the start-up message."""
        greeted = False
        while True:
            kind, message = await self.server.message()
            number = self.numbers[self.answered] if greeted and self.answered < len(self.numbers) else 0
            ends = kind == b"Z"
            if self.wire.cuts(number, "after"):
                if ends:
                    raise Lost
                continue
            if ends:
                self.answered += greeted
                greeted = True
            await self._pass(self.client, message)

    async def start_up(self) -> None:
        while True:
            message = await self.client.start_message()
            await self._pass(self.server, message)
            if int.from_bytes(message[4:8]) not in ENCRYPTION:
                return
            # The server has no certificate: it declines with one byte.
            self.client.writer.write(await self.server.reader.readexactly(1))

    def _note(self, kind: bytes, message: bytes) -> None:
        parts = message[5:].split(b"\0")
        match kind:
            case b"P":
                self.statements[parts[0].decode()] = parts[1].decode()
            case b"B":
                self.texts.append(self.statements.get(parts[1].decode(), ""))
            case b"Q":
                self.texts.append(parts[0].decode())
            case _:
                pass

    async def _pass(self, to: "Peer", message: bytes | bytearray) -> None:
        await self.wire.open.wait()
        if not self.vanished:
            to.writer.write(bytes(message))
            await to.writer.drain()


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def message(self) -> tuple[bytes, bytes]:
        head = await self.reader.readexactly(5)
        return head[:1], head + await self.reader.readexactly(int.from_bytes(head[1:5]) - 4)

    async def start_message(self) -> bytes:
        head = await self.reader.readexactly(4)
        return head + await self.reader.readexactly(int.from_bytes(head) - 4)


class Wire:
    """See the module's head.

    Attributes:
        port: where clients connect.
        requests: how many came so far, over all connections.
        log: what each of them ran.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.port = 0
        self.requests = 0
        self.log: list[str] = []
        self.connections: set[Connection] = set()
        self._cut: tuple[int, Side] | None = None
        self.cut_happened = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- from the test's thread ------------------------------------------------------------------------------

    def cut(self, nth: int, side: Side) -> None:
        """Cut the connection of the n-th request from now on.

        Args:
            nth: 1 is the next one.
            side: ``before`` the server sees it, or ``after`` it answered and before the client sees that.
        """
        self.cut_happened = False
        self._cut = (self.requests + nth, side)

    def stall(self) -> None:
        """Nothing moves any more, in neither direction, and nothing is closed."""
        self._do(self._set(moving=False))

    def resume(self) -> None:
        """What was held moves on, also what clients sent that are gone meanwhile."""
        self._do(self._set(moving=True))

    def vanish(self) -> None:
        """The server loses its connections, and the clients of these hear nothing more: no answer, no end."""
        self._do(self._vanish())

    def cut_all(self) -> None:
        """Close every connection, on both sides."""
        self._do(self._cut_all())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    # -- on the proxy's loop ---------------------------------------------------------------------------------

    def begin(self, text: str) -> int:
        self.requests += 1
        self.log.append(text)
        return self.requests

    def cuts(self, number: int, side: Side) -> bool:
        if number == 0 or self._cut != (number, side):
            return False
        self.cut_happened = True
        return True

    async def _set(self, *, moving: bool) -> None:
        if moving:
            self.open.set()
        else:
            self.open.clear()

    async def _vanish(self) -> None:
        for connection in self.connections:
            connection.vanished = True
            connection.server.writer.transport.abort()

    async def _cut_all(self) -> None:
        for connection in self.connections:
            connection.client.writer.transport.abort()
            connection.server.writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Not a coroutine function: asyncio's own tasks for these report a cancellation as an error.
        task = asyncio.ensure_future(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Peer(reader, writer)
        try:
            server = Peer(*await asyncio.open_connection("127.0.0.1", self.server_port))
        except OSError:  # no server there: the client is told as it would be without the proxy between
            writer.transport.abort()
            return
        connection = Connection(self, client, server)
        self.connections.add(connection)
        try:
            await self._carry(connection)
        finally:
            self.connections.discard(connection)
            for peer in (client, server):
                peer.writer.transport.abort()

    async def _carry(self, connection: Connection) -> None:
        try:
            await connection.start_up()
        except (OSError, asyncio.IncompleteReadError):
            return
        directions = [asyncio.ensure_future(connection.up()), asyncio.ensure_future(connection.down())]
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            if connection.vanished and directions[0] not in done:
                done, _ = await asyncio.wait(directions[:1])
            for direction in done:
                error = direction.exception()
                if not isinstance(error, (Lost, OSError, asyncio.IncompleteReadError)):
                    raise error or AssertionError("a direction ended by itself")
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.wait(directions)

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self.open = asyncio.Event()
        self.open.set()
        self._end = asyncio.Event()
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = listener.sockets[0].getsockname()[1]
        ready.set()
        await self._end.wait()
        listener.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @contextmanager
    def running(self) -> "Iterator[Wire]":
        ready = threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        thread.start()
        assert ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._end.set)
            thread.join(10)


@contextmanager
def wire(server_port: int) -> Iterator[Wire]:
    """A proxy before the server on that port of this machine."""
    with Wire(server_port).running() as proxy:
        yield proxy
