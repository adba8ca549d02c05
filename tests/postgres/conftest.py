from collections.abc import Iterator

import pytest

from tests.postgres.server import Server, server


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that the tests of one module may stop, crash and reconfigure."""
    with server() as pg:
        yield pg
