"""Loggers that never raise: an application's handlers and filters are code like any other, and may be broken.

`logging` looks after the errors of a handler's `emit`, and lets those of filters, of record factories and of
`Handler.handle` out to whoever logs. Here that is the code that drives runs, and has more to do than to log.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

__all__ = ["CarefulLogger", "logger"]


class CarefulLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose calls return, whatever the application's logging raises; `KeyboardInterrupt` passes.

    A record that is lost so is written to stderr in a line, as `logging` does with those that a handler
    cannot write, unless `logging.raiseExceptions` is off.

    Args:
        logger: where the records go.
        extra: attributes for each of them.
    """

    def __init__(self, logger: logging.Logger, extra: Mapping[str, object] | None = None) -> None:
        super().__init__(logger, extra or {})

    @override
    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        if self.extra:
            kwargs["extra"] = {**self.extra, **(kwargs.get("extra") or {})}
        return msg, kwargs

    @override
    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the caller's line, not the one below
        try:
            super().log(level, msg, *args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is not about what is logged
            _lost(self.logger.name, msg, args, error)


def logger(name: str) -> CarefulLogger:
    """The logger of that name, for code that must not fail for what listens to it."""
    return CarefulLogger(logging.getLogger(name))


def _lost(name: str, msg: object, args: tuple[object, ...], error: BaseException) -> None:
    if not logging.raiseExceptions:
        return
    try:
        text = str(msg) % args if args else str(msg)
        sys.stderr.write(f"{name}: the application's logging raised {type(error).__name__}: {text}\n")
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110 - no stderr, or an argument that cannot be shown: nobody is told
        pass
