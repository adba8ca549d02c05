"""Compression and encryption: alone, one after the other, and around whole runs."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zstandard import ZstdError

from duramen import CodecSerializer, Context, JsonSerializer, Runtime, workflow
from duramen.codecs.aesgcm import AesGcm, UnknownKey
from duramen.codecs.zstd import Zstd
from duramen.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {"old": bytes(range(16)), "new": bytes(range(32))}
zstd, aes = Zstd(threshold=8), AesGcm(KEYS, "new")


@given(st.binary(max_size=3000) | st.binary(max_size=20).map(lambda part: part * 500))
def test_every_payload_comes_back(data: bytes) -> None:
    assert zstd.decode(zstd.encode(data)) == data
    assert aes.decode(aes.encode(data)) == data
    assert zstd.decode(aes.decode(aes.encode(zstd.encode(data)))) == data
    assert len(zstd.encode(data)) <= len(data) + 1


@given(st.binary(max_size=200))
def test_what_no_codec_wrote_is_refused_and_nothing_else_happens(data: bytes) -> None:
    for codec in (zstd, aes):
        # `ZstdError` for what claims to be packed and is not.
        with suppress(ValueError, OSError, ZstdError):
            codec.decode(data)


def test_a_payload_that_claims_to_be_huge_is_not_unpacked() -> None:
    # A frame header with a content size of 2**40 bytes, and nothing behind it.
    bomb = b"\x01" + b"\x28\xb5\x2f\xfd\xc0\x00" + (1 << 40).to_bytes(8, "little")
    with pytest.raises(ValueError, match="1099511627776 bytes"):
        zstd.decode(bomb)


def test_a_change_anywhere_is_noticed() -> None:
    sealed = aes.encode(b"hello")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises((ValueError, UnknownKey)):
            aes.decode(bytes(changed))
    for end in range(len(sealed)):
        with pytest.raises((ValueError, UnknownKey)):
            aes.decode(sealed[:end])
    assert aes.encode(b"hello") != sealed, "each has a nonce of its own"


def test_keys_are_rotated_by_adding_one_and_making_it_current() -> None:
    before = AesGcm({"old": KEYS["old"]})
    written = before.encode(b"x")
    assert AesGcm(KEYS, "new").decode(written) == b"x"
    with pytest.raises(UnknownKey, match="no key 'new' here"):
        before.decode(aes.encode(b"x"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (({},), "by their ids"),
        (({"a": b"short"},), "16, 24 or 32 bytes"),
        (({"": bytes(16)},), "1 to 255 bytes"),
        (({"é" * 128: bytes(16)},), "1 to 255 bytes"),
        ((KEYS,), "say which one"),
        ((KEYS, "none"), "none of the keys"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_and_never_shown(
    arguments: tuple[object, ...], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        AesGcm(*arguments)  # type: ignore[arg-type]
    assert "short" not in str(caught.value)
    assert "x00" not in repr(aes)


def test_levels_and_thresholds_that_make_no_sense_are_refused() -> None:
    for level, threshold in ((0, 0), (23, 0), (3, -1)):
        with pytest.raises(InvalidArgument):
            Zstd(level, threshold)


def test_threads_share_a_codec() -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        for size in range(100, 400):
            data = bytes([number]) * size
            if aes.decode(aes.encode(zstd.decode(zstd.encode(data)))) != data:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@workflow(events={"more": str})
async def telling(ctx: Context, secret: str) -> str:
    said = await ctx.step("say", str.upper, secret)
    return said + await ctx.wait_for_event("more")


async def a_run_goes_through_both(path: Path) -> None:
    serializer = CodecSerializer(JsonSerializer(), Zstd(), AesGcm(KEYS, "new"))
    async with Runtime(f"sqlite:///{path}", workflows=[telling], serializer=serializer) as runtime:
        run = await runtime.start(telling, "hush " * 1000, run_id="r")
        await runtime.signal("r", "more", "murmur")
        assert await run.result(timeout=20) == "HUSH " * 1000 + "murmur"


def test_a_run_goes_through_both_and_the_file_holds_none_of_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    asyncio.run(a_run_goes_through_both(path))
    with sqlite3.connect(path) as connection:
        payloads = b"".join(row[0] for row in connection.execute("SELECT payload FROM journal"))
    assert len(payloads) < 2000
    for word in (b"hush", b"HUSH", b"murmur"):
        assert word not in path.read_bytes()
        assert word not in payloads


async def without_the_key(url: str) -> None:
    with_key = CodecSerializer(JsonSerializer(), AesGcm(KEYS, "new"))
    without = CodecSerializer(JsonSerializer(), AesGcm({"old": KEYS["old"]}))
    async with Runtime(url, workflows=[telling], serializer=with_key) as runtime:
        await runtime.run(telling, "a", run_id="r")
        await runtime.signal("r", "more", "b")
    async with Runtime(url, workflows=[telling], serializer=without) as runtime:
        await runtime.sweep(max_duration=0.5)
        view = await runtime.get("r")
        assert view.status == "waiting"
        assert view.note is None
    async with Runtime(url, workflows=[telling], serializer=with_key) as runtime:
        await runtime.sweep()
        assert await runtime.result("r", timeout=20) == "Ab"


def test_a_run_whose_key_is_missing_here_is_given_back_whole(tmp_path: Path) -> None:
    asyncio.run(without_the_key(f"sqlite:///{tmp_path / 'app.db'}"))
