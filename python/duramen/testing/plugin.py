"""The pytest plugin: tests as coroutines in an environment, crashes everywhere, the suspend matrix.

Load it in the topmost ``conftest.py``::

    pytest_plugins = ["duramen.testing.plugin"]

It brings three markers for async tests with an argument `env`, and runs these itself; no other plugin for
async tests is needed, and none may be told to run them, too. The arguments of the markers are workflows,
their keywords options of `Environment`::

    @pytest.mark.duramen(fulfillment)
    async def test_once(env): ...


    @pytest.mark.crash_everywhere(fulfillment)
    async def test_with_a_crash_at_every_change_of_the_store(env): ...


    @pytest.mark.suspend_matrix(fulfillment)
    async def test_kept_dropped_and_fed_one_by_one(env): ...

Under the last two the test is a scenario: it is called again and again, so it gives run ids and signal ids,
and may return what has to be the same each time. A test may have several of them. Fixtures are made once.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from . import Environment, crash_everywhere, suspend_matrix

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__: list[str] = []

_MARKERS = {
    "duramen": "run an async test in a duramen.testing.Environment, its argument `env`",
    "crash_everywhere": "run an async test with a crash at every change that it makes of the store",
    "suspend_matrix": "run an async test with its runs kept warm, dropped, and fed one outcome at a time",
}


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for name, meaning in _MARKERS.items():
        config.addinivalue_line("markers", f"{name}(*workflows, **options): {meaning}")


@pytest.fixture
def env(request: pytest.FixtureRequest) -> Any:
    """The `Environment` of a test with one of the markers; each repetition of the test has its own."""
    node: pytest.Item = request.node
    if not any(node.get_closest_marker(name) for name in _MARKERS):
        pytest.fail("`env` needs a marker that names the workflows, as in @pytest.mark.duramen(fulfillment)")
    # The test gets the real one when it is called: an environment belongs to an event loop.


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the tests that have one of the markers."""
    markers = {name: marker for name in _MARKERS if (marker := pyfuncitem.get_closest_marker(name))}
    if not markers:
        return None
    test: Callable[..., Awaitable[Any]] = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test) or "env" not in pyfuncitem.fixturenames:
        pytest.fail(f"@pytest.mark.{next(iter(markers))} is for tests of the form `async def test_…(env)`")
    asked = inspect.signature(test).parameters
    values = {name: pyfuncitem.funcargs[name] for name in asked if name in pyfuncitem.funcargs}

    async def scenario(env: Environment) -> Any:
        return await test(**values | {"env": env})

    for name, marker in markers.items():
        asyncio.run(_run(name, pyfuncitem, scenario, marker.args, dict(marker.kwargs)))
    return True


async def _run(
    name: str,
    item: pytest.Function,
    scenario: Callable[[Environment], Awaitable[Any]],
    workflows: tuple[Any, ...],
    options: dict[str, Any],
) -> None:
    if name == "crash_everywhere":
        crashes = await crash_everywhere(scenario, workflows, **options)
        item.user_properties.append(("crash points", 2 * len(crashes.changes)))
        item.add_report_section("call", "crash points", str(crashes))
    elif name == "suspend_matrix":
        suspended = await suspend_matrix(scenario, workflows, **options)
        item.add_report_section("call", "suspend matrix", f"taken up: {suspended.tenures}")
    else:
        async with Environment(workflows, **options) as env:
            await scenario(env)
