from collections.abc import Iterator

import pytest

from tests.postgres.schemas import migrate
from tests.postgres.server import Server, server


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that the tests of one module may stop, crash and reconfigure."""
    with server() as pg:
        yield pg


@pytest.fixture
def own_database(own_server: Server) -> str:
    """The URL of an empty store in a database of its own, for tests that look at all of its sessions."""
    url = own_server.new_database()
    migrate(url)
    return url
