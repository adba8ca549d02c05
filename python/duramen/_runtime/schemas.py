"""The store's schema: which version it has, and bringing it up to date."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from duramen.errors import StoreNewer, StoreUnmigrated

from .views import SchemaView

if TYPE_CHECKING:
    from collections import deque

    from duramen._bridge import RunEvent, Schema

    from .lifecycle import Lifecycle
    from .port import Port
    from .settings import Settings

__all__ = ["Schemas", "prepare"]

_VERSIONS = re.compile(r"at version (\d+), .*?(\d+)")


class Schemas:
    """The calls about the schema; they work on a runtime that is not open, too."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle) -> None:
        self._settings = settings
        self._lifecycle = lifecycle

    async def migrate(self) -> SchemaView:
        """See `Runtime.migrate`."""
        return await self._call(migrate=True)

    async def read(self) -> SchemaView:
        """See `Runtime.schema`."""
        return await self._call(migrate=False)

    async def _call(self, *, migrate: bool) -> SchemaView:
        lifecycle = self._lifecycle
        if lifecycle.port is not None:
            return await _asked(lifecycle.ready, migrate=migrate)
        # Only a store that may be migrated is created if it is missing.
        try:
            opened = await lifecycle.connected(migrate)
            port = lifecycle.new_port(asyncio.get_running_loop(), _ignore, migrate=migrate, opened=opened)
        except (StoreUnmigrated, StoreNewer) as error:
            # A store may look at its schema when it is opened; what it says then is the answer.
            found = _VERSIONS.search(str(error))
            if migrate or found is None:
                raise
            return SchemaView(int(found[1]), int(found[2]))
        try:
            applied = port.engine.applied_on_open()
            view = await _asked(port, migrate=migrate)
            return SchemaView(view.found, view.needed, (*applied, *view.applied))
        finally:
            await port.close(self._settings.shutdown_timeout)


async def prepare(settings: Settings, port: Port, migrate: bool) -> None:
    """See to it that the schema of a store that is being opened can be worked with.

    Raises:
        StoreUnmigrated: it is missing or older, and is not to be migrated.
        StoreNewer: a later version of Duramen wrote it.
    """
    target = settings.target
    schema = await _asked(port, migrate=migrate)
    if schema.found < schema.needed:
        raise StoreUnmigrated(
            f"the schema of {target} is at version {schema.found} and this version of duramen needs "
            f"{schema.needed}: run `duramen migrate {target}`, or open the runtime with migrate=True"
        )
    # Our own stores have looked when they were opened, and know which newer schemas they can work with.
    if schema.found > schema.needed and target.scheme == "python":
        raise StoreNewer(
            f"the schema of {target} is at version {schema.found}, newer than {schema.needed}, "
            "the newest that this version of duramen knows: upgrade duramen here"
        )


async def _asked(port: Port, *, migrate: bool) -> SchemaView:
    schema: Schema = await port.call(port.engine.migrate if migrate else port.engine.schema)
    return SchemaView(schema.found, schema.needed, tuple(schema.applied))


def _ignore(events: deque[RunEvent]) -> None:
    pass
