"""The pytest plugin, as a project uses it: in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = 'pytest_plugins = ["duramen.testing.plugin"]\n'
WORKFLOWS = """
import pytest

from duramen import Context, workflow

seen: list[str] = []


async def work(what: str) -> str:
    return what


@workflow
async def good(ctx: Context, what: str) -> str:
    await ctx.sleep(3600)
    return await ctx.step("work", work, what)


@workflow
async def bad(ctx: Context) -> str:
    seen.append(ctx.run_id)
    await ctx.step(f"work-{len(seen)}", work, "x")
    await ctx.step("second", work, "x")
    return "done"
"""


def run(folder: Path, tests: str, *options: str, conftest: str = CONFTEST) -> str:
    (folder / "conftest.py").write_text(conftest)
    (folder / "flows.py").write_text(WORKFLOWS)
    (folder / "test_flows.py").write_text(
        f"import pytest\nimport flows\nfrom flows import bad, good\n\n\n{tests}"
    )
    (folder / "pytest.ini").write_text("[pytest]\nstrict = true\nfilterwarnings = error\n")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *options, "."],
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
        text=True,
    )
    return ran.stdout + ran.stderr


def test_marked_tests_run_and_fail_as_they_should(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
@pytest.fixture
def greeting():
    return "hello"


@pytest.mark.duramen(good, seed=3)
@pytest.mark.parametrize("name", ["ada", "bob"])
async def test_once(env, greeting, name):
    run = await env.runtime.start(good, f"{greeting} {name}", run_id="r")
    await env.advance(hours=1)
    assert await run.result() == f"hello {name}"


@pytest.mark.crash_everywhere(good, workers=("another",))
@pytest.mark.suspend_matrix(good)
async def test_scenario(env):
    return await env.result(await env.runtime.start(good, "x", run_id="r"))


class TestInAClass:
    @pytest.mark.duramen(good)
    async def test_method(self, env):
        assert await env.result(await env.runtime.start(good, "x")) == "x"


@pytest.mark.duramen(good)
async def test_wrong(env):
    assert await env.result(await env.runtime.start(good, "x")) == "y"


@pytest.mark.crash_everywhere(bad, replay=False)
async def test_crash_finds_it(env):
    if not await env.runtime.count():
        flows.seen.clear()
    return await env.result(await env.runtime.start(bad, run_id="r"))


@pytest.mark.suspend_matrix(bad, replay=False)
async def test_suspension_finds_it(env):
    flows.seen.clear()
    return await env.result(await env.runtime.start(bad, run_id="r"))


@pytest.mark.duramen(good)
def test_not_async(env):
    pass


def test_no_marker(env):
    pass
""",
    )
    for passed in ("test_once[ada]", "test_once[bob]", "test_scenario", "TestInAClass::test_method"):
        assert f"PASSED test_flows.py::{passed}" in out, out
    for failed, why in {
        "test_wrong": "AssertionError",
        "test_crash_finds_it": "CrashFailed: crash before",
        "test_suspension_finds_it": "SuspendFailed: driven evicting: RunStuck",
        "test_not_async": "is for tests of the form `async def test_…(env)`",
    }.items():
        assert f"FAILED test_flows.py::{failed} - " in out, out
        assert why in out, out
    assert "ERROR test_flows.py::test_no_marker" in out
    assert "`env` needs a marker that names the workflows" in out
    assert "crash points" in out
    assert "4 failed, 4 passed, 1 error" in out, out


def test_the_crash_points_of_a_test_are_reported(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    out = run(
        tmp_path,
        """
@pytest.mark.crash_everywhere(good)
async def test_scenario(env):
    return await env.result(await env.runtime.start(good, "x", run_id="r"))
""",
        f"--junit-xml={report}",
    )
    assert "1 passed" in out, out
    assert '<property name="crash points" value="10" />' in report.read_text()


def test_nothing_of_pytest_is_loaded_without_it() -> None:
    code = "import sys, duramen.testing; print('pytest' in sys.modules, '_pytest' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert ran.stdout.split() == ["False", "False"]


def test_the_markers_are_known_to_pytest(tmp_path: Path) -> None:
    out = run(tmp_path, "", "--markers")
    for name in ("duramen", "crash_everywhere", "suspend_matrix"):
        assert f"@pytest.mark.{name}(*workflows, **options)" in out, out


@pytest.mark.parametrize("marker", ["crash_everywhere", "duramen"])
def test_without_the_plugin_strict_markers_say_so(tmp_path: Path, marker: str) -> None:
    out = run(
        tmp_path,
        f"@pytest.mark.{marker}(good)\nasync def test_x(env):\n    pass\n",
        conftest="",
    )
    assert f"'{marker}' not found in `markers` configuration option" in out
