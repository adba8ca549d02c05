"""Encrypted connections, and whom they are made to."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from duramen import Runtime
from duramen.errors import DuramenError, InvalidArgument, StoreUnavailable
from tests.postgres.server import Server, server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def encrypted(authority: trustme.CA) -> Iterator[Server]:
    """A server that takes encrypted connections only, and shows a certificate for 127.0.0.1."""
    with server() as pg:
        shown = authority.issue_cert("127.0.0.1")
        certificate, key = pg.data / "server.crt", pg.data / "server.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in shown.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(shown.private_key_pem.bytes())
        for path in (certificate, key):
            pg._own(path)
        (pg.data / "pg_hba.conf").write_text("hostssl all all 127.0.0.1/32 scram-sha-256\n")
        pg.conf(ssl="on")
        pg.stop()
        pg.start()
        yield pg


@pytest.fixture(scope="module")
def roots(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def connects(pg: Server, **options: str) -> None:
    async def main() -> None:
        await Runtime(pg.url_of(**options)).schema()

    asyncio.run(main())


def refusal(pg: Server, **options: str) -> str:
    with pytest.raises(DuramenError) as refused:
        connects(pg, **options)
    assert pg.password not in str(refused.value)
    return str(refused.value)


def test_it_encrypts_if_the_server_can(encrypted: Server) -> None:
    connects(encrypted)
    connects(encrypted, sslmode="prefer")
    connects(encrypted, sslmode="require")


def test_without_encryption_this_server_refuses(encrypted: Server) -> None:
    assert "no encryption" in refusal(encrypted, sslmode="disable")


@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_a_server_with_a_certificate_of_a_trusted_authority_is_who_it_says(
    encrypted: Server, roots: Path, sslmode: str
) -> None:
    connects(encrypted, sslmode=sslmode, sslrootcert=str(roots))


@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_a_certificate_of_another_authority_is_refused(
    encrypted: Server, tmp_path: Path, sslmode: str
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert "certificate" in refusal(encrypted, sslmode=sslmode, sslrootcert=str(other))
    # The system's authorities have not signed it either.
    assert "certificate" in refusal(encrypted, sslmode=sslmode)


def test_a_list_of_authorities_is_there_to_be_used(encrypted: Server, tmp_path: Path) -> None:
    """As with libpq: `require` with `sslrootcert` checks as `verify-ca` does."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert "certificate" in refusal(encrypted, sslmode="require", sslrootcert=str(other))


def test_a_certificate_for_another_host_is_good_enough_for_verify_ca_alone(
    encrypted: Server, roots: Path
) -> None:
    # The name is not in the certificate, which names the address.
    by_name = {"sslrootcert": str(roots)}

    def url(sslmode: str) -> str:
        return encrypted.url_of(sslmode=sslmode, **by_name).replace("127.0.0.1", "localhost", 1)

    async def main() -> None:
        await Runtime(url("verify-ca")).schema()
        with pytest.raises(StoreUnavailable, match="certificate"):
            await Runtime(url("verify-full")).schema()

    asyncio.run(main())


def test_what_cannot_be_read_is_named(encrypted: Server, tmp_path: Path) -> None:
    assert "nowhere.pem" in refusal(
        encrypted, sslmode="verify-full", sslrootcert=str(tmp_path / "nowhere.pem")
    )
    empty = tmp_path / "empty.pem"
    empty.touch()
    assert "authority" in refusal(encrypted, sslmode="verify-full", sslrootcert=str(empty))
    with pytest.raises(InvalidArgument, match="sslmode"):
        connects(encrypted, sslmode="perhaps")
