"""The statements of docs/production.md, run as they stand there, and what each role can do and cannot."""

import asyncio
import re
import secrets
from pathlib import Path

import pytest
from psycopg import sql

from duramen import Context, Runtime, workflow
from duramen.errors import StoreError
from tests.postgres.server import Server

PAGE = (Path(__file__).parents[2] / "docs" / "production.md").read_text("utf-8")


def statements() -> tuple[list[str], str]:
    """The grants, and the question of how late the oldest run is."""
    blocks = re.findall(r"^ *```sql\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL)
    grants = [block for block in blocks if "GRANT" in block]
    assert len(grants) == 2
    (late,) = [block for block in blocks if "seconds_late" in block]
    return grants, late


@workflow
async def greet(ctx: Context, name: str) -> str:
    """A run with an event."""
    return f"{await ctx.wait_for_event('word', str)} {name}"


@workflow
async def fails(ctx: Context) -> None:
    """A run that can be retried."""
    raise ValueError("not yet")


@pytest.fixture(scope="module")
def urls(own_server: Server) -> dict[str, str]:
    """A migrated database, and who can connect to it."""
    owner = own_server.new_database("shop")
    asyncio.run(_migrate(owner))
    found = {"owner": owner}
    for block in statements()[0]:
        own_server.sql(block, database="shop")
    for role in ("app", "reader"):
        password = secrets.token_hex(8)
        own_server.sql(
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(password))
        )
        found[role] = own_server.url_of("shop", user=role, password=password)
    return found


async def _migrate(url: str) -> None:
    await Runtime(url).migrate()


def test_the_role_of_the_application_can_do_everything_but_change_the_schema(urls: dict[str, str]) -> None:
    async def main() -> None:
        async with Runtime(urls["app"], workflows=[greet, fails]) as runtime:
            run = await runtime.start(greet, "you", run_id="greet:1", memo={"a": 1})
            await runtime.signal("greet:1", "word", "hello", signal_id="s")
            assert await run.result(timeout=20) == "hello you"
            await runtime.enqueue_many([(greet, "a"), (greet, "b")])
            assert (await runtime.sweep()).queued
            bad = await runtime.start(fails, run_id="fails:1")
            with pytest.raises(Exception, match="not yet"):
                await bad.result(timeout=20)
            await runtime.retry("fails:1")
            await runtime.cancel("fails:1")
            for view in await runtime.list():
                await runtime.terminate(view.run_id)
                await runtime.timeline(view.run_id)
                await runtime.delete(view.run_id)
            assert await runtime.count() == 0
            assert (await runtime.schema()).found == 1
        # There is nothing to do: that needs no permission.
        assert (await Runtime(urls["app"]).migrate()).applied == ()
        with pytest.raises(StoreError, match="permission denied"):
            await Runtime(f"{urls['app']}?schema=other").migrate()

    asyncio.run(main())


def test_readers_read_and_change_nothing(urls: dict[str, str], own_server: Server) -> None:
    async def main() -> None:
        async with Runtime(urls["app"], workflows=[greet]) as runtime:
            await runtime.enqueue(greet, "me", run_id="greet:2")
        async with Runtime(urls["reader"], workflows=[greet]) as runtime:
            assert [view.run_id for view in await runtime.list()] == ["greet:2"]
            assert (await runtime.get("greet:2")).input == "me"
            assert len(await runtime.timeline("greet:2")) == 1
            for change in (
                lambda: runtime.enqueue(greet, "you"),
                lambda: runtime.signal("greet:2", "word", "hello"),
                lambda: runtime.terminate("greet:2"),
            ):
                with pytest.raises(StoreError, match="permission denied"):
                    await change()
            assert await runtime.count() == 1

    asyncio.run(main())
    ((late,),) = own_server.sql(statements()[1], database="shop")
    assert 0 <= float(late) < 60
