"""The contract that every store keeps, ours and others', as one class of tests.

Derive a class from `StoreContract`, say how a store is opened, and let pytest find it:

>>> from duramen.testing import StoreContract, open_store
>>> class TestSqlite(StoreContract):
...     async def open_store(self, place):
...         return open_store(f"sqlite:///{place}/runs.db")

`place` is an empty directory, one for each test. Some tests open several stores at one place, or open it
again after all of them were closed; a store for which that means nothing says so with ``shared = False`` or
``durable = False``. A store on a server takes the place's name as that of a schema or of a database. Every
test calls `migrate` first.

Nothing but pytest is needed. All times are given to the store, so that no test waits; each has an event loop
of its own.
"""

from __future__ import annotations

from ._contract.claims import ClaimRules
from ._contract.commits import CommitRules
from ._contract.concurrency import ConcurrencyRules
from ._contract.creation import CreationRules
from ._contract.formats import FormatRules, GenerationRules
from ._contract.inbox import InboxRules
from ._contract.interventions import InterventionRules
from ._contract.limits import LimitRules
from ._contract.outgoing import OutgoingRules
from ._contract.owners import OwnerRules
from ._contract.pauses import PauseRules
from ._contract.queries import QueryRules
from ._contract.schedules import ScheduleRules
from ._contract.streams import StreamRules

__all__ = ["StoreContract"]


class StoreContract(
    CreationRules,
    OwnerRules,
    ClaimRules,
    CommitRules,
    GenerationRules,
    FormatRules,
    OutgoingRules,
    StreamRules,
    InboxRules,
    InterventionRules,
    PauseRules,
    QueryRules,
    ScheduleRules,
    LimitRules,
    ConcurrencyRules,
):
    """Tests of one store; see the module's head."""
