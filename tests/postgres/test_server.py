"""The server that the tests start: like one in production, and gone with them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.postgres import server as module
from tests.postgres.server import BIN_VARIABLE, URL_VARIABLE, NoPostgres, Server, binaries, server
from tests.regressions.support import wait_until

ROOT = Path(__file__).parents[2]
WITH_POSTGRES = ROOT / "tools" / "with_postgres.py"

# A shell gives its background jobs an ignored SIGINT, which all that they start inherits.
OWNER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from tests.postgres.server import server
with server() as pg:
    standby = pg.standby() if "standby" in sys.argv else pg
    print(pg.port, pg.folder, standby.port, standby.folder, flush=True)
    time.sleep(60)
"""


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def pg(own_server: Server) -> Server:
    return own_server


def test_it_writes_as_in_production(pg: Server) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert pg.sql(f"SHOW {setting}") == [("on",)]


def test_it_can_be_reached_from_this_machine_alone_and_with_its_password_alone(pg: Server) -> None:
    assert pg.sql("SHOW listen_addresses") == [("127.0.0.1",)]
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(pg.url_of(password="guessed"))


def test_what_was_committed_survives_a_crash(pg: Server) -> None:
    url = pg.new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (n int)")
        connection.execute("INSERT INTO t VALUES (1)")
    port = pg.port
    pg.stop("immediate")
    assert not pg.running
    pg.start()
    assert pg.port == port
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]


def test_settings_are_reloaded(pg: Server) -> None:
    pg.conf(default_transaction_isolation="repeatable read")
    wait_until(lambda: pg.sql("SHOW default_transaction_isolation") == [("repeatable read",)])
    pg.conf(default_transaction_isolation="read committed")


def test_a_standby_follows_and_takes_over(pg: Server) -> None:
    url = pg.new_database("followed")
    standby = pg.standby()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    wait_until(lambda: standby.sql("SELECT to_regclass('t')", database="followed") != [(None,)])
    assert standby.sql("SELECT n, pg_is_in_recovery() FROM t", database="followed") == [(7, True)]
    standby.promote()
    standby.sql("INSERT INTO t VALUES (8)", database="followed")


@pytest.fixture
def owner(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, *request.param], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(
    ("owner", "number"),
    [(["standby"], signal.SIGKILL), (["alone"], signal.SIGINT)],
    ids=["killed", "ctrl-c"],
    indirect=["owner"],
)
def test_nothing_is_left_of_it_when_its_owner_is_gone(
    owner: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert owner.stdout is not None
    port, folder, other_port, other_folder = owner.stdout.readline().split()
    ports, folders = (int(port), int(other_port)), (Path(folder), Path(other_folder))
    assert all(map(listens, ports))
    owner.send_signal(number)
    assert owner.wait(60) != 0
    wait_until(lambda: not any(map(listens, ports)) and not any(path.exists() for path in folders))


def from_wheel() -> list[Path]:
    return list(module._wheel())


@pytest.mark.skipif(sys.platform == "win32", reason="the wheel's server for Windows cannot be run as here")
def test_the_servers_of_the_wheel_do_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    assert from_wheel(), "the dependency group `test` brings it"
    for folder in from_wheel()[-1:]:  # the newest is enough: they are made alike
        monkeypatch.setenv(BIN_VARIABLE, str(folder))
        assert binaries() == folder
        with server() as pg:
            (version,) = pg.sql("SELECT current_setting('server_version_num')::int")[0]
            assert version >= 160000
            assert pg.standby().sql("SELECT pg_is_in_recovery()") == [(True,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to start the server as somebody else")
def test_root_copies_programs_that_the_servers_user_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = from_wheel()[0]
    package = wheel.parent.parent
    shutil.copytree(wheel.parent, tmp_path / package.name / wheel.parent.name)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, tmp_path / libraries.name)
    tmp_path.chmod(0o700)
    monkeypatch.setenv(BIN_VARIABLE, str(tmp_path / package.name / wheel.parent.name / "bin"))
    with server() as pg:
        assert pg.bin.is_relative_to(pg.folder)
        assert pg.sql("SELECT 1") == [(1,)]
        assert pg.folder.stat().st_uid != 0


def test_without_binaries_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(BIN_VARIABLE, raising=False)
    monkeypatch.setattr(module, "_candidates", lambda: iter([tmp_path]))
    with pytest.raises(NoPostgres, match="apt install postgresql"), server():
        pass
    monkeypatch.setenv(BIN_VARIABLE, str(tmp_path))
    with pytest.raises(NoPostgres, match=f"{BIN_VARIABLE}=.*initdb"), server():
        pass


def with_postgres(*command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != URL_VARIABLE}
    if given is not None:
        environment[URL_VARIABLE] = given
    return subprocess.run(
        [sys.executable, WITH_POSTGRES, *command],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


SHOW = f"""
import os, psycopg
url = os.environ["{URL_VARIABLE}"]
print(url, psycopg.connect(url).execute("SELECT 6 * 7").fetchall())
"""


def test_commands_share_one_server_and_the_first_failure_counts() -> None:
    show = (sys.executable, "-c", SHOW)
    ran = with_postgres(*show, "--and", *show, "--and", "sh", "-c", "exit 3", "--and", *show)
    assert ran.returncode == 3, ran.stderr
    first, second = ran.stdout.splitlines()
    assert first == second
    assert first.endswith("[(42,)]")


def test_a_server_that_is_given_is_used(pg: Server) -> None:
    ran = with_postgres(sys.executable, "-c", SHOW, given=pg.url)
    assert ran.stdout.split() == [pg.url, "[(42,)]"]


def test_a_command_killed_by_a_signal_is_no_success(pg: Server) -> None:
    assert with_postgres("sh", "-c", "kill -9 $$", given=pg.url).returncode == 128 + signal.SIGKILL
