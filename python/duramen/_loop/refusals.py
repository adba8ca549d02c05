"""The part of an event loop that a run's loop does not have: everything whose outcome no journal can record.

Each method is written out, so that a type checker sees the whole of `AbstractEventLoop` implemented and a
search for a method name ends here. They are plain functions even where asyncio's are coroutines: the error
comes at the call, not at an `await` that may never happen.
"""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

from typing_extensions import override

from duramen.errors import NotDurableError


def refuse(call: str, advice: str = "put it in a step") -> NoReturn:
    """Raise the error of a call that a handler cannot make."""
    raise NotDurableError(
        f"{call} was called in a workflow handler, where its outcome cannot be recorded: {advice}"
    )


class RefusingLoop(asyncio.AbstractEventLoop):
    """An `asyncio.AbstractEventLoop` in which every form of I/O raises `NotDurableError` at once."""

    # -- threads

    @override
    def run_in_executor(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("a thread (asyncio.to_thread or loop.run_in_executor)")

    @override
    def set_default_executor(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.set_default_executor")

    # -- running: a driver drains this loop, nobody else runs it

    @override
    def run_forever(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.run_forever", "the runtime runs this loop; await instead")

    @override
    def run_until_complete(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.run_until_complete", "the runtime runs this loop; await instead")

    @override
    def stop(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.stop", "the runtime runs this loop; return from the handler to end the run")

    # -- names and addresses

    @override
    def getaddrinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.getaddrinfo (a name look-up or a network connection)")

    @override
    def getnameinfo(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.getnameinfo")

    # -- connections and servers

    @override
    def create_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.create_connection (a network connection)")

    @override
    def create_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.create_server")

    @override
    def create_unix_connection(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.create_unix_connection")

    @override
    def create_unix_server(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.create_unix_server")

    @override
    def create_datagram_endpoint(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.create_datagram_endpoint")

    @override
    def connect_accepted_socket(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.connect_accepted_socket")

    @override
    def start_tls(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.start_tls")

    @override
    def sendfile(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sendfile")

    # -- sockets

    @override
    def sock_recv(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_recv")

    @override
    def sock_recv_into(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_recv_into")

    @override
    def sock_recvfrom(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_recvfrom")

    @override
    def sock_recvfrom_into(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_recvfrom_into")

    @override
    def sock_sendall(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_sendall")

    @override
    def sock_sendto(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_sendto")

    @override
    def sock_connect(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_connect")

    @override
    def sock_accept(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_accept")

    @override
    def sock_sendfile(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.sock_sendfile")

    # -- file descriptors and pipes

    @override
    def add_reader(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.add_reader")

    @override
    def remove_reader(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.remove_reader")

    @override
    def add_writer(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.add_writer")

    @override
    def remove_writer(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.remove_writer")

    @override
    def connect_read_pipe(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.connect_read_pipe")

    @override
    def connect_write_pipe(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.connect_write_pipe")

    # -- subprocesses and signals

    @override
    def subprocess_shell(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("a subprocess (loop.subprocess_shell)")

    @override
    def subprocess_exec(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("a subprocess (loop.subprocess_exec)")

    @override
    def add_signal_handler(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.add_signal_handler", "install signal handlers in the program that runs the worker")

    @override
    def remove_signal_handler(self, *args: Any, **kwargs: Any) -> NoReturn:
        refuse("loop.remove_signal_handler", "install signal handlers in the program that runs the worker")
