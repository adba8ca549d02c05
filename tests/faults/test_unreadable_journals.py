"""A store that leases runs and then cannot read their journals."""

import asyncio

import pytest

from duramen import Runtime
from duramen.errors import StoreCorrupt
from tests.regressions.support import WrappedStore
from tests.runtime.workflows import adding

pytestmark = pytest.mark.anyio


class Unreadable(WrappedStore):
    """Its claims leave the journals out, as they may, and then none can be read."""

    async def claim(self, request: object) -> object:
        claimed = await self.inner.claim(request)
        return {**claimed, "runs": [{**run, "journal": None} for run in claimed["runs"]]}

    async def load(self, run_id: str, start: int, limit: int) -> object:
        raise StoreCorrupt("page 7 is damaged")


async def test_nobody_waits_for_ever_for_a_run_that_cannot_be_read(url: str) -> None:
    async with Runtime(Unreadable(url), workflows=[adding], migrate=True) as runtime:
        await runtime.enqueue(adding, 1, run_id="r")
        async with asyncio.timeout(20):
            result = await runtime.run(adding, 1, run_id="r")
        assert result.kind == "not_claimable"
    async with Runtime(url, workflows=[adding]) as runtime:
        assert (await runtime.run(adding, 1, run_id="r")).output == 2
