"""Certificates as the manual of Postgres makes them: self-signed, or with a host in the subject alone."""

import asyncio
import datetime as dt
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from duramen import Runtime
from duramen.errors import DuramenError, StoreUnavailable
from tests.postgres.server import Server, server

OPENSSL = shutil.which("openssl")

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="the manual's commands need openssl")


def openssl(folder: Path, *arguments: str) -> None:
    assert OPENSSL is not None
    subprocess.run([OPENSSL, *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def self_signed(folder: Path, name: str, subject: str, *arguments: str) -> Path:
    """The manual's command for one server, and its users."""
    openssl(
        folder, "req", "-new", "-x509", "-days", "365", "-nodes", "-text", "-newkey", "rsa:2048",
        "-out", f"{name}.crt", "-keyout", f"{name}.key", "-subj", f"/CN={subject}", *arguments,
    )  # fmt: skip
    return folder / f"{name}.crt"


@pytest.fixture(scope="module")
def pg() -> Iterator[Server]:
    with server() as made:
        yield made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


def shows(pg: Server, certificate: Path) -> None:
    """The server is restarted with another certificate."""
    for source, name in ((certificate, "server.crt"), (certificate.with_suffix(".key"), "server.key")):
        to = pg.data / name
        to.unlink(missing_ok=True)
        to.touch(0o600)
        to.write_bytes(source.read_bytes())
        pg._own(to)
    pg.conf(ssl="on")
    pg.restart()


def verdict(pg: Server, roots: Path, sslmode: str, host: str = "localhost") -> str:
    """Empty, or why not."""
    url = pg.url_of(sslmode=sslmode, sslrootcert=str(roots)).replace("127.0.0.1", host, 1)

    async def main() -> None:
        await Runtime(url).schema()

    try:
        asyncio.run(main())
    except StoreUnavailable as error:
        return str(error)
    return ""


def test_a_certificate_that_is_its_own_authority(pg: Server, certificates: Path) -> None:
    shown = self_signed(certificates, "own", "localhost")
    other = self_signed(certificates, "other", "localhost")
    shows(pg, shown)
    both = certificates / "both.pem"
    both.write_bytes(other.read_bytes() + shown.read_bytes())
    for roots in (shown, both):
        for sslmode in ("require", "verify-ca", "verify-full"):
            assert verdict(pg, roots, sslmode) == ""
    # The very certificate, not one of the same name; and it is one for this host alone.
    for sslmode in ("require", "verify-ca", "verify-full"):
        assert "certificate" in verdict(pg, other, sslmode)
    assert verdict(pg, shown, "verify-ca", "127.0.0.1") == ""
    assert "certificate" in verdict(pg, shown, "verify-full", "127.0.0.1")


@pytest.mark.parametrize(
    ("subject", "arguments", "host", "fits"),
    [
        ("127.0.0.1", (), "127.0.0.1", True),
        ("LOCALHOST", (), "localhost", True),
        ("localhost.evil.example", (), "localhost", False),
        ("*", (), "localhost", False),
        # Alternative names are all that counts where there are some.
        ("localhost", ("-addext", "subjectAltName=DNS:db.example"), "localhost", False),
        ("db.example", ("-addext", "subjectAltName=DNS:localhost"), "localhost", True),
        ("db.example", ("-addext", "subjectAltName=IP:127.0.0.1"), "127.0.0.1", True),
        ("localhost", ("-addext", "basicConstraints=critical,CA:FALSE"), "localhost", True),
    ],
)
def test_the_host_that_it_names(
    pg: Server, certificates: Path, subject: str, arguments: tuple[str, ...], host: str, fits: bool
) -> None:
    shown = self_signed(certificates, "named", subject, *arguments)
    shows(pg, shown)
    assert (verdict(pg, shown, "verify-full", host) == "") is fits
    assert verdict(pg, shown, "verify-ca", host) == ""


def test_one_of_an_authority_that_names_the_host_by_its_subject(pg: Server, certificates: Path) -> None:
    """The manual's commands for a root and a server's certificate: neither has alternative names."""
    root = self_signed(certificates, "root", "root.example")
    for name, subject in (("leaf", "localhost"), ("leaf2", "elsewhere.example")):
        openssl(certificates, "req", "-new", "-nodes", "-newkey", "rsa:2048", "-out", f"{name}.csr",
                "-keyout", f"{name}.key", "-subj", f"/CN={subject}")  # fmt: skip
        (certificates / "ext").write_text("basicConstraints=CA:FALSE\n")
        openssl(certificates, "x509", "-req", "-in", f"{name}.csr", "-days", "365", "-CA", "root.crt",
                "-CAkey", "root.key", "-CAcreateserial", "-extfile", "ext",
                "-out", f"{name}.crt")  # fmt: skip
        shows(pg, certificates / f"{name}.crt")
        assert verdict(pg, root, "verify-ca") == ""
        assert (verdict(pg, root, "verify-full") == "") is (subject == "localhost")
        assert "certificate" in verdict(
            pg, self_signed(certificates, "stranger", "root.example"), "verify-full"
        )


def test_one_that_has_expired(pg: Server, certificates: Path) -> None:
    """Dates count for one that is trusted as it is, too."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(dt.UTC)
    for begins, ends in ((-10, -1), (1, 10)):
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(today + dt.timedelta(days=begins))
            .not_valid_after(today + dt.timedelta(days=ends))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        shown = certificates / "dated.crt"
        shown.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        shown.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        shows(pg, shown)
        for sslmode in ("verify-ca", "verify-full"):
            assert "certificate" in verdict(pg, shown, sslmode)


def test_tls_without_the_question_for_it(pg: Server, certificates: Path) -> None:
    """`sslnegotiation=direct` works with a server that knows it (17), and fails with others."""
    shows(pg, self_signed(certificates, "own", "localhost"))

    async def main() -> None:
        await Runtime(pg.url_of(sslmode="require", sslnegotiation="direct")).schema()

    if int(pg.sql("SHOW server_version_num")[0][0]) >= 170000:
        asyncio.run(main())
    else:
        with pytest.raises(DuramenError):
            asyncio.run(main())
