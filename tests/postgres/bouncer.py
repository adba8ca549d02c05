"""A real PgBouncer before a server of the tests."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres.server import Server, free_port
from tests.regressions.support import wait_until

BROUGHT = Path(__file__).parents[2] / ".venv" / "pgbouncer"
"""Where `tools/pgbouncer.sh` puts it."""

# It ends with the process that started it, however that ends: the shell's standard input is closed then.
KEEPER = '"$@" </dev/null >/dev/null 2>&1 & child=$!; cat >/dev/null; kill -TERM $child 2>/dev/null; wait'


def why_not() -> str | None:
    """Why there is no PgBouncer on this machine; none if there is one."""
    if _installed() is not None or (BROUGHT / "pgbouncer").exists():
        return None
    why = BROUGHT / "why"
    return why.read_text().strip() if why.exists() else "no pgbouncer here: run `make .venv/.pgbouncer`"


def _installed() -> str | None:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


needs_pgbouncer = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@contextlib.contextmanager
def bouncer(pg: Server, **settings: Any) -> Iterator[int]:
    """Start PgBouncer in transaction mode and give its port; the server's users and databases are behind it.

    Args:
        pg: the server.
        settings: lines for its configuration, by name.
    """
    folder = pg.folder / f"pgbouncer-{secrets.token_hex(4)}"
    folder.mkdir()
    program = _installed()
    if program is None:
        # Into the server's folder: its user may not see ours.
        shutil.copytree(BROUGHT, folder, dirs_exist_ok=True, symlinks=True)
        program = str(folder / "pgbouncer")
    port = free_port()
    configuration = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "users",
        "logfile": folder / "log",
        "pool_mode": "transaction",
        "max_client_conn": 200,
        "default_pool_size": 4,
        "admin_users": "postgres",
        **settings,
    }
    lines = [f"{name} = {value}" for name, value in configuration.items()]
    (folder / "users").write_text(f'"postgres" "{pg.password}"\n')
    (folder / "ini").write_text(
        "\n".join(["[databases]", f"* = host=127.0.0.1 port={pg.port}", "[pgbouncer]", *lines, ""])
    )
    options: dict[str, Any] = {}
    if pg.user is not None:  # it does not run as root
        options = {"user": pg.user.pw_uid, "group": pg.user.pw_gid, "extra_groups": []}
        for path in [folder, *folder.iterdir()]:
            os.chown(path, pg.user.pw_uid, pg.user.pw_gid, follow_symlinks=False)
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", KEEPER, "keeper", program, folder / "ini"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)},
        start_new_session=True,
        **options,
    )
    assert keeper.stdin is not None
    try:

        def answers() -> bool:
            try:
                psycopg.connect(pg.url_of(port=port), connect_timeout=2).close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers)
        yield port
    finally:
        keeper.stdin.close()
        keeper.wait(30)
