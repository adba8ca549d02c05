"""Calls under a virtual clock: one that its engine makes again after a pause moves the clock, which stands still."""

# The environment stands around a runtime and looks into what that is made of.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from duramen._runtime_calls import Port

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ._env import Environment

__all__ = ["EnvPort"]

_INSISTING = frozenset({"start", "create", "take", "adopt", "deliver", "terminate", "reopen", "delete"})
"""Calls that the engine makes again, with pauses, when the store is in trouble."""

_LOOK = 0.002
"""Real seconds between two looks at whether such a call has been answered."""

_QUIET = 3
"""Looks without anything happening after which it waits for the clock."""


class EnvPort(Port):
    """The port of an environment's runtime."""

    def __init__(self, env: Environment, *args: Any) -> None:
        super().__init__(*args)
        self._env = env

    @override
    def call_with_token(self, method: Callable[..., None], *args: Any) -> tuple[int, asyncio.Future[Any]]:
        token, future = super().call_with_token(method, *args)
        if method.__name__ in _INSISTING:
            self.loop.call_later(_LOOK, self._look, future, 0)
        return token, future

    def _look(self, future: asyncio.Future[Any], quiet: int) -> None:
        """Move the clock to the engine's next instant if that is all that a call waits for."""
        if future.done() or self._closed:
            return
        env = self._env
        asked = self._store is not None and bool(self._store._tasks)
        if self.collect() or asked or env.steps.busy or env._due_here():
            quiet = 0
        elif quiet < _QUIET:
            quiet += 1
        else:
            quiet = 0
            at = env.world.clock.next()
            if at is not None:
                env.world.clock.advance(at)
                env.world.wake_sleepers()
                env.steps.fire()
                self.collect()
        if not future.done():
            self.loop.call_later(_LOOK, self._look, future, quiet)
