"""A store written in Python that answers nonsense: its callers get typed errors, and nothing hangs."""

import asyncio
import copy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from duramen import Context, Runtime, workflow
from duramen.errors import DuramenError
from duramen.testing import open_store
from tests.fuzz.effort import effort

METHODS = [
    "schema",
    "migrate",
    "create",
    "claim",
    "commit",
    "heartbeat",
    "retire",
    "unread",
    "inbox",
    "next_due",
    "deliver",
    "intervene",
    "get",
    "load",
    "list",
]
junk = (
    st.none()
    | st.booleans()
    | st.sampled_from([-1, 0, 1, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 1.5, float("nan")])
    | st.text(max_size=4)
    | st.binary(max_size=4)
    | st.sampled_from([[], {}, "running", "run_created", "applied", b"1"])
)


@workflow
async def visit(ctx: Context) -> str:
    await ctx.step("knock", str, 1)
    await ctx.sleep(0.001)
    return "seen"


class Liar:
    """The memory store, one of whose answers is changed somewhere."""

    def __init__(self, method: str, path: list[int], value: Any) -> None:
        self.inner = open_store("memory://")
        self.method, self.path, self.value = method, path, value

    def __getattr__(self, name: str) -> Any:
        honest = getattr(self.inner, name)
        if name != self.method:
            return honest

        async def lie(*arguments: Any) -> Any:
            return spoil(copy.deepcopy(await honest(*arguments)), self.path, self.value)

        return lie


def spoil(answer: Any, path: list[int], value: Any) -> Any:
    if not path or not isinstance(answer, list | tuple | dict) or not answer:
        return value
    keys = list(answer) if isinstance(answer, dict) else list(range(len(answer)))
    key = keys[path[0] % len(keys)]
    if isinstance(answer, tuple):
        return tuple(spoil(each, path[1:], value) if at == key else each for at, each in enumerate(answer))
    answer[key] = spoil(answer[key], path[1:], value)
    return answer


async def use(store: Any) -> None:
    runtime = Runtime(store, workflows=[visit], shutdown_timeout=0.2)
    try:
        async with runtime:
            calls = (
                lambda: runtime.run(visit, run_id="r", max_duration=0.2),
                runtime.sweep,
                lambda: runtime.signal("r", "word"),
                lambda: runtime.get("r"),
                lambda: runtime.export("r"),
                runtime.list,
                lambda: runtime.terminate("r"),
                lambda: runtime.delete("r", force=True),
            )
            for call in calls:
                try:
                    await call()
                except DuramenError:
                    pass
    except DuramenError:
        pass


@effort(80)
@given(method=st.sampled_from(METHODS), path=st.lists(st.integers(0, 30), max_size=5), value=junk)
@example(method="claim", path=[1, 0, 0, 15], value=-1)
@example(method="get", path=[], value=None)
@example(method="deliver", path=[], value="")
@example(method="create", path=[], value=[])
@example(method="heartbeat", path=[1], value=False)
@example(method="load", path=[0, 1], value="no_such_kind")
def test_nonsense_from_a_store_is_a_typed_error(method: str, path: list[int], value: Any) -> None:
    asyncio.run(asyncio.wait_for(use(Liar(method, path, value)), 20))
