"""URLs and command lines."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from duramen import Runtime
from duramen._stores.url import parse_target
from duramen.cli.app import app
from duramen.errors import DuramenError, InvalidArgument
from tests.fuzz.effort import effort

PIECES = r"sqlite memory postgresql postgres :// : / // ? # % %00 %2F %ff @ a.db u:p@h [ ] :memory: .."
pieces = st.sampled_from([*PIECES.split(), "\0", " ", "\ud800"])
urls = st.text(alphabet=st.characters()) | st.lists(pieces | st.text(max_size=3), max_size=6).map("".join)


@effort(400)
@given(url=urls)
@example(url="sqlite://[")
@example(url="sqlite:///[x]/a.db")
@example(url="sqlite:///%ff")
@example(url="sqlite:///\ud800")
def test_any_url_is_a_store_or_refused(url: str) -> None:
    try:
        target = parse_target(url)
    except InvalidArgument:
        with pytest.raises(InvalidArgument):
            Runtime(url)
    else:
        assert target.scheme in {"memory", "sqlite", "postgres"}
        assert "\0" not in target.location
        if target.scheme == "postgres":
            return
        assert parse_target(str(target).replace("%", "%25").replace("?", "%3F").replace("#", "%23")) == target
        Runtime(url)  # opens nothing


@effort(50)
@given(
    scheme=st.sampled_from(["sqlite", "postgresql", "postgres", "mysql", "memory2", "[", ""]),
    password=st.text(alphabet="XYZ789", min_size=8),
    rest=st.sampled_from(["", "/", "/db", "/db?a=b", "]"]),
)
def test_no_password_is_repeated(scheme: str, password: str, rest: str) -> None:
    url = f"{scheme}://ann:{password}@host{rest}"
    try:
        target = parse_target(url)
    except InvalidArgument as refused:
        said = str(refused)
    else:
        assert scheme in {"postgresql", "postgres"}
        said = f"{target} {target!r} {Runtime(url)!r}"
    assert password not in said


STORE = "memory://"
WORDS = """
runs list show timeline watch cancel terminate retry delete signal approve migrate versions check
--store order:1 paid {} [1,
--json --help --version --count --yes -h -- --limit --since -1 0 50 nan inf 1e400 --reason --by --status
waiting stuck --tag --workflow --waiting-for timer event:x --prefix --cursor
--patches --sample --from-version a:b
"""
words = st.sampled_from([*WORDS.split(), STORE, ""])
arguments = st.lists(
    words | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=6), max_size=7
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Whatever a command makes, it makes here."""
    folder = tmp_path_factory.mktemp("commands")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DURAMEN_URL", STORE)
        yield folder


@effort(250)
@given(args=arguments)
@example(args=["runs", "list", "--since", "nan"])
@example(args=["runs", "list", "--since", "inf"])
@example(args=["runs", "list", "--since", "1e400"])
@example(args=["runs", "list", "--since", "-1e300"])
@example(args=["runs", "list", "--cursor", "x"])
@example(args=["signal", "order:1", "paid", "[1,"])
def test_any_command_line_does_its_work_or_says_why_not(folder: Path, args: list[str]) -> None:
    # These start processes, or go on until they are stopped.
    assume(not {"demo", "worker", "sweep"} & set(args))
    assume("watch" not in args)
    ran = CliRunner().invoke(app, args)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        # `run` makes one sentence and an exit code of these, and of nothing else.
        assert isinstance(ran.exception, DuramenError), args
    else:
        assert ran.exit_code in {0, 1, 2, 3, 4}, args
    assert list(folder.iterdir()) == []
