"""The conformance kit of storages: what every `Storage` must hold.

Subclass the kit and give it two clients of one new storage, not yet started. Time goes as `advance` says; a storage
with a clock of its own waits, with a `unit` that makes that short::

    class TestMemoryStorage(StorageKit):
        def clients(self, idle_seconds):
            storage = MemoryStorage(idle_seconds=idle_seconds, monotonic=self.clock)
            return storage, storage
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from greenroom.actors.errors import ConfigurationError
from greenroom.services.storage import (
    NOT_THERE,
    Cell,
    Conflict,
    Fence,
    FolderKey,
    Head,
    Named,
    NameTaken,
    Span,
    Storage,
)
from kits.in_turn import TRICKY_KEYS
from kits.storage_machine import StorageMachine
from kits.storage_owners_kit import (
    KEY,
    OTHER,
    StorageOwnersKit,
    body_of,
    cells_of,
    change,
    fence_of,
    head_of,
    numbers_of,
)

__all__ = ["KEY", "OTHER", "StorageKit", "change"]

IDS = (
    *TRICKY_KEYS,
    ("\ud800", "\udfff"),
    ("\ud800\udfff", ""),
    ("\x00", "\x00"),
    ("", ""),
    ("x" * 400, "é" * 400),
)
NAMES = (b"a", b"a\x00", b"\x00a", b"\xff\xfe", b"A", "ä".encode(), b"n" * 300, b"{a}", b"a:b", b"a*")
LARGE = bytes(range(256)) * 4_096
LAST = 2**53 - 1


class StorageKit(StorageOwnersKit):
    """The laws for any storage."""

    # ------------------------------------------------------------------------------------------------ start and stop

    async def test_it_is_used_between_start_and_stop_which_count(self) -> None:
        storage, _ = self.clients(1e6)
        await _is_not_started(storage)
        await asyncio.gather(storage.start(), storage.start())
        await storage.write([change(head=b"1")])
        await storage.stop()
        assert await body_of(storage) == b"1"
        await storage.stop()
        await _is_not_started(storage)
        await storage.start()
        assert await body_of(storage) == b"1"
        await storage.stop()
        await storage.stop()
        await _is_not_started(storage)
        await storage.start()
        await storage.stop()

    async def test_what_is_under_way_when_it_stops_is_done(self) -> None:
        storage, _ = self.clients(1e6)
        await storage.start()
        writes = [
            asyncio.ensure_future(storage.write([change(put=[(Cell("a", n), b"x")])])) for n in range(20)
        ]
        await asyncio.sleep(0)
        await storage.stop()
        assert len(set(await asyncio.gather(*writes))) == 20
        await storage.start()
        assert await numbers_of(storage) == list(range(20))
        await storage.stop()

    # ------------------------------------------------------------------------------------------------ what is written

    async def test_what_was_never_written_is_not_there(self) -> None:
        async with self.started() as (one, _):
            assert await one.read(KEY) is None
            assert await one.read(KEY, [Span("a")]) is None
            assert await one.lookup(b"a") is None
            assert await one.sessions("session", "u") == ()
            assert await one.orphans("session", 10) == ()
            assert await one.write([]) == ()

    async def test_an_empty_change_makes_an_empty_folder(self) -> None:
        async with self.started() as (one, other):
            (fence,) = await one.write([change()])
            assert fence.epoch >= 1
            assert fence.revision >= 1
            found = await other.read(KEY, [Span("a"), Span("b", 3, 4)])
            assert found is not None
            assert found.head == Head(KEY, fence, b"", "", "gone", False)
            assert found.spans == ((), ())
            assert type(found.head.key) is FolderKey
            assert type(found.head.fence) is Fence

    async def test_what_a_change_does_not_name_stays(self) -> None:
        async with self.started() as (one, other):
            await one.renew("me", 100 * self.unit)
            await one.write(
                [
                    change(
                        head=b"head", owner="me", open=True, put=[(Cell("a", 1), b"1")], names=[(b"n", b"v")]
                    )
                ]
            )
            others: list[Any] = [
                {},
                {"take": True},
                {"put": [(Cell("b", 1), b"2")]},
                {"drop": [Cell("b", 1)]},
            ]
            for fields in others:
                (fence,) = await one.write([change(**fields)])
                found = await other.read(KEY, [Span("a")])
                assert found is not None
                assert found.head == Head(KEY, fence, b"head", "me", "serving", True)
                assert found.spans == (((1, b"1"),),)
                assert await other.lookup(b"n") == Named(KEY, b"v")
            await one.write([change(head=b"", owner="", open=False)])
            assert await head_of(other) == ("", "gone", False)
            assert await body_of(other) == b""

    async def test_values_are_put_replaced_and_dropped(self) -> None:
        async with self.started() as (one, other):
            cells = [Cell("a", 0), Cell("a", 7), Cell("a", LAST), Cell("b", 7)]
            await one.write([change(put=[(cell, b"%d" % place) for place, cell in enumerate(cells)])])
            await one.write(
                [change(put=[(cells[1], b"new"), (cells[2], b"")], drop=[cells[0], Cell("c", 1), cells[2]])]
            )
            assert await cells_of(other, "a") == ((7, b"new"), (LAST, b""))
            assert await cells_of(other, "b") == ((7, b"3"),)
            await one.write([change(put=[(cells[0], b"first"), (cells[0], b"last")])])
            assert (await cells_of(other, "a"))[0] == (0, b"last")

    async def test_spans_have_their_cells_by_rising_number(self) -> None:
        async with self.started() as (one, other):
            numbers = [10, 9, 2, 1, 100, 11, LAST, 0, 2**40, 20]
            await one.write([change(put=[(Cell("a", number), b"%d" % number) for number in numbers])])
            spans = [
                *(Span("a"), Span("a", 2, 11), Span("a", 2, 2), Span("a", 3, 8)),
                *(Span("a", 12), Span("b"), Span("a", 5, 4), Span("a", 0, LAST)),
            ]
            found = await other.read(KEY, spans)
            assert found is not None
            for span, cells in zip(spans, found.spans, strict=True):
                wanted = sorted(n for n in numbers if span.section == "a" and span.first <= n <= span.last)
                assert cells == tuple((number, b"%d" % number) for number in wanted)

    async def test_many_cells_and_large_values(self) -> None:
        async with self.started() as (one, other):
            await one.write(
                [change(head=LARGE, put=[(Cell("a", number), b"%d" % number) for number in range(3_000)])]
            )
            await one.write([change(put=[(Cell("b", number), LARGE[number:]) for number in range(4)])])
            found = await other.read(KEY, [Span("a"), Span("b"), Span("a", 1_000, 1_001)])
            assert found is not None
            assert found.head.body == LARGE
            assert found.spans[0] == tuple((number, b"%d" % number) for number in range(3_000))
            assert found.spans[1] == tuple((number, LARGE[number:]) for number in range(4))
            assert found.spans[2] == ((1_000, b"1000"), (1_001, b"1001"))
            await one.write([change(drop=[Cell("a", number) for number in range(2_999)])])
            assert await cells_of(other, "a") == ((2_999, b"2999"),)

    async def test_keys_do_not_meet(self) -> None:
        async with self.started() as (one, other):
            keys = [FolderKey(kind, *ids) for kind in ("session", "session2", "log") for ids in IDS]
            for number, key in enumerate(keys):
                await one.write(
                    [change(key, expected=NOT_THERE, head=b"%d" % number, put=[(Cell("a", number), b"x")])]
                )
            for number, key in enumerate(keys):
                found = await other.read(key, [Span("a")])
                assert found is not None
                assert (found.head.key, found.head.body) == (key, b"%d" % number)
                assert found.spans == (((number, b"x"),),)
            for key in keys[::2]:
                await one.write([change(key, delete=True)])
            assert [await other.read(key) is None for key in keys] == [
                number % 2 == 0 for number in range(len(keys))
            ]

    async def test_a_folder_that_is_deleted_is_gone_with_all_of_it(self) -> None:
        async with self.started() as (one, other):
            await one.write(
                [change(head=b"1", owner="me", open=True, put=[(Cell("a", 1), b"1")], names=[(b"n", b"v")])]
            )
            assert await one.write([change(delete=True, drop=[Cell("a", 1)], unname=[b"n"])]) == (NOT_THERE,)
            assert await other.read(KEY) is None
            assert await other.lookup(b"n") is None
            assert await other.sessions("session", "u") == ()
            assert await other.orphans("session", 10) == ()
            assert await one.write([change(delete=True)]) == (NOT_THERE,)
            assert await one.write([change(delete=True, expected=NOT_THERE)]) == (NOT_THERE,)
            await one.write([change()])
            assert await body_of(other) == b""
            assert await cells_of(other, "a") == ()

    async def test_a_change_that_deletes_applies_to_an_empty_folder(self) -> None:
        async with self.started() as (one, other):
            old = change(owner="me", open=True, put=[(Cell("a", 1), b"1")], names=[(b"n", b"v"), (b"m", b"")])
            (before,) = await one.write([old])
            (fence,) = await one.write(
                [change(delete=True, expected=before, put=[(Cell("a", 2), b"2")], names=[(b"n", b"new")])]
            )
            found = await other.read(KEY, [Span("a")])
            assert found is not None
            assert found.head == Head(KEY, fence, b"", "", "gone", False)
            assert found.spans == (((2, b"2"),),)
            assert await other.lookup(b"n") == Named(KEY, b"new")
            assert await other.lookup(b"m") is None
            others: list[Any] = [{"head": b""}, {"owner": ""}, {"open": False}, {"take": True}]
            for fields in others:
                assert (await one.write([change(delete=True, **fields)]))[0] != NOT_THERE

    # ------------------------------------------------------------------------------------------------------ the fence

    async def test_no_two_states_of_a_folder_have_the_same_fence(self) -> None:
        async with self.started() as (one, other):
            fences: list[Fence] = []
            for _ in range(3):
                fences += await one.write([change()])
                fences += await other.write([change(head=b"x")])
                fences += await one.write([change(take=True)])
                fences += await other.write([change(delete=True, head=b"y")])
                await one.write([change(delete=True)])
            assert len(set(fences)) == 12
            assert NOT_THERE not in fences
            assert fences == sorted(fences)

    async def test_who_takes_a_folder_gets_the_highest_epoch_of_all(self) -> None:
        async with self.started() as (one, other):
            highest = 0
            for number in range(12):
                key = (KEY, OTHER, KEY._replace(kind="log"))[number % 3]
                (fence,) = await (one, other)[number % 2].write([change(key, take=True)])
                assert fence.epoch > highest
                highest = fence.epoch
                (same,) = await one.write([change(key)])
                assert same.epoch == highest
                assert same.revision > fence.revision
            await one.write([change(delete=True), change(OTHER, delete=True)])
            (fence,) = await one.write([change(OTHER)])
            assert fence.epoch > highest

    async def test_another_fence_than_expected_refuses_the_write_and_tells_how_it_stands(self) -> None:
        async with self.started() as (one, other):
            await one.renew("me", 100 * self.unit)
            (first,) = await one.write([change(expected=NOT_THERE, head=b"1", owner="me", open=True)])
            (second,) = await one.write([change(expected=first, head=b"2")])
            writes: list[Any] = [{"head": b"3"}, {"take": True}, {"delete": True}]
            stale = [NOT_THERE, first, Fence(second.epoch + 1, second.revision), Fence(2**50, 2**50)]
            for fence in stale:
                for fields in writes:
                    with pytest.raises(Conflict) as refused:
                        await other.write([change(expected=fence, names=[(b"n", b"")], **fields)])
                    assert refused.value.key == KEY
                    assert refused.value.found == Head(KEY, second, b"2", "me", "serving", True)
            assert await other.lookup(b"n") is None
            with pytest.raises(Conflict) as refused:
                await other.write([change(OTHER, expected=second)])
            assert (refused.value.key, refused.value.found) == (OTHER, None)
            assert await other.read(OTHER) is None

    async def test_of_writers_that_expect_one_fence_one_writes(self) -> None:
        async with self.started() as clients:
            (fence,) = await clients[0].write([change()])
            for expected, key in ((fence, KEY), (NOT_THERE, OTHER)):
                writes = [
                    clients[number % 2].write(
                        [change(key, expected=expected, put=[(Cell("a", number), b"x")])]
                    )
                    for number in range(20)
                ]
                ended = await asyncio.gather(*writes, return_exceptions=True)
                assert sum(isinstance(error, Conflict) for error in ended) == 19
                (wrote,) = [
                    number for number, fences in enumerate(ended) if not isinstance(fences, Exception)
                ]
                assert await numbers_of(clients[0], key) == [wrote]

    async def test_writers_that_try_again_lose_nothing(self) -> None:
        async def add(client: Storage, name: int) -> None:
            for number in range(name, name + 5):
                while True:
                    found = await client.read(KEY)
                    expected = NOT_THERE if found is None else found.head.fence
                    body = b"" if found is None else found.head.body
                    try:
                        await client.write([change(expected=expected, head=body + b"%d," % number)])
                        break
                    except Conflict:
                        continue

        async with self.started() as (one, other):
            await asyncio.gather(*(add((one, other)[n % 2], n * 10) for n in range(4)))
            written = [int(word) for word in (await body_of(one)).split(b",")[:-1]]
            assert sorted(written) == [n * 10 + number for n in range(4) for number in range(5)]

    # -------------------------------------------------------------------------------------------------- all or nothing

    async def test_changes_are_done_together(self) -> None:
        async with self.started() as (one, other):
            keys = [KEY._replace(session_id=str(number)) for number in range(20)]
            fences = await one.write([change(key, head=key.session_id.encode()) for key in keys])
            assert [await body_of(other, key) for key in keys] == [b"%d" % number for number in range(20)]
            assert len({fence.epoch for fence in fences}) == 20
            again = [
                change(key, expected=fence, delete=True) for key, fence in zip(keys, fences, strict=True)
            ]
            assert set(await one.write(again)) == {NOT_THERE}

    async def test_when_one_of_them_is_refused_none_is_done(self) -> None:
        async with self.started() as (one, other):
            (fence,) = await one.write([change(head=b"1", put=[(Cell("a", 1), b"1")], names=[(b"n", b"v")])])
            good = change(
                OTHER, take=True, owner="me", open=True, put=[(Cell("a", 1), b"x")], names=[(b"m", b"")]
            )
            gone = change(KEY, expected=fence, delete=True)
            third = KEY._replace(session_id="third")
            for bad, error in (
                (change(third, expected=fence), Conflict),
                (change(third, names=[(b"k", b""), (b"m", b"other")]), NameTaken),
            ):
                for order in ([good, gone, bad], [gone, good, bad]):
                    with pytest.raises(error):
                        await one.write(order)
                    assert await other.read(OTHER) is None
                    assert await other.read(third) is None
                    assert await fence_of(other) == fence
                    assert await cells_of(other, "a") == ((1, b"1"),)
                    assert await other.lookup(b"n") == Named(KEY, b"v")
                    assert await other.lookup(b"m") is None
                    assert await other.orphans("session", 9) == ()
            assert len(await one.write([good, gone])) == 2

    async def test_a_conflict_goes_before_a_name(self) -> None:
        async with self.started() as (one, _):
            await one.write([change(names=[(b"n", b"v")])])
            with pytest.raises(Conflict):
                await one.write([change(OTHER, names=[(b"n", b"")]), change(expected=NOT_THERE)])

    async def test_a_write_that_is_given_up_is_done_as_a_whole_or_not_at_all(self) -> None:
        one, other = self.clients(1e6)
        for number in range(20):
            await one.start()
            keys = KEY._replace(session_id=f"{number}"), KEY._replace(session_id=f"{number} too")
            writing = asyncio.ensure_future(
                one.write([change(key, head=b"x", put=[(Cell("a", 1), b"x")]) for key in keys])
            )
            for _ in range(number % 7):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await one.stop()  # after what is under way
            await other.start()
            there = {await other.read(key) is not None for key in keys}
            assert len(there) == 1
            await other.stop()

    async def test_what_is_read_is_of_one_moment(self) -> None:
        async def write(client: Storage) -> None:
            for number in range(60):
                value = b"%d" % number
                await client.write([change(head=value, put=[(Cell("a", 1), value), (Cell("b", 1), value)])])

        async with self.started() as (one, other):
            await one.write([change()])
            writing = asyncio.ensure_future(write(one))
            while not writing.done():
                found = await other.read(KEY, [Span("a"), Span("b")])
                await asyncio.sleep(0)
                assert found is not None
                if found.spans[0]:
                    assert {found.head.body, found.spans[0][0][1], found.spans[1][0][1]} == {found.head.body}
            await writing

    # ------------------------------------------------------------------------------------------------------- the names

    async def test_a_name_points_to_one_folder_with_one_value(self) -> None:
        async with self.started() as (one, other):
            await one.write([change(names=[(name, name[::-1]) for name in NAMES])])
            for name in NAMES:
                assert await other.lookup(name) == Named(KEY, name[::-1])
                with pytest.raises(NameTaken) as taken:
                    await other.write([change(OTHER, names=[(b"free", b""), (name, name[::-1])])])
                assert (taken.value.name, taken.value.named) == (name, Named(KEY, name[::-1]))
                with pytest.raises(NameTaken):
                    await other.write([change(names=[(name, b"another value")])])
                await one.write([change(names=[(name, name[::-1])])])
            assert await other.lookup(b"free") is None
            assert await other.lookup(b"b") is None
            with pytest.raises(NameTaken):
                await other.write([change(OTHER, names=[(b"free", b"1"), (b"free", b"2")])])

    async def test_a_name_is_free_again_when_its_folder_gives_it_up(self) -> None:
        async with self.started() as (one, other):
            await one.write([change(names=[(b"n", b"1"), (b"m", b"1")])])
            await one.write([change(OTHER, unname=[b"n", b"nobody's"])])
            await one.write([change(OTHER, unname=[b"n", b"nobody's"])])
            assert await other.lookup(b"n") == Named(KEY, b"1")
            await one.write([change(unname=[b"n"], names=[(b"n", b"2")])])
            assert await other.lookup(b"n") == Named(KEY, b"2")
            await one.write([change(unname=[b"n"]), change(OTHER, names=[(b"n", b"3")])])
            assert await other.lookup(b"n") == Named(OTHER, b"3")
            with pytest.raises(NameTaken):
                await one.write([change(KEY, names=[(b"n", b"4")]), change(OTHER, unname=[b"n"])])
            await one.write([change(delete=True), change(OTHER, names=[(b"m", b"5")])])
            assert await other.lookup(b"m") == Named(OTHER, b"5")

    async def test_of_writers_that_want_one_name_one_gets_it(self) -> None:
        async with self.started() as clients:
            writes = [
                clients[number % 2].write([change(KEY._replace(session_id=str(number)), names=[(b"n", b"")])])
                for number in range(20)
            ]
            ended = await asyncio.gather(*writes, return_exceptions=True)
            assert sum(isinstance(error, NameTaken) for error in ended) == 19
            assert len(await clients[0].sessions("session", "u")) == 1

    async def test_sessions_are_those_of_the_kind_and_the_user_by_their_bytes(self) -> None:
        async with self.started() as (one, other):
            ids = ["b", "a", "B", "ä", "\U0001f600", "\uffff", "\ud800", "", "a\x00", "ab", "10", "9"]
            await one.write([change(FolderKey("session", "u", session_id)) for session_id in ids])
            for kind, user_id in (("log", "u"), ("session", "v"), ("session", "")):
                await one.write([change(FolderKey(kind, user_id, "x"))])
            by_bytes = sorted(ids, key=lambda text: text.encode("utf-8", "surrogatepass"))
            assert await other.sessions("session", "u") == tuple(by_bytes)
            assert await other.sessions("log", "u") == ("x",)
            assert await other.sessions("session", "w") == ()

    # ---------------------------------------------------------------------------------------------- whatever the order

    def test_it_does_as_dictionaries_do(self) -> None:
        kit = self

        class Against(StorageMachine):
            def open(self) -> Sequence[Storage]:
                return kit.clients(1e6)

        run_state_machine_as_test(Against, settings=settings(max_examples=25, stateful_step_count=40))


async def _is_not_started(storage: Storage) -> None:
    for call in (
        *(
            storage.write([change()]),
            storage.read(KEY),
            storage.lookup(b"n"),
            storage.sessions("session", "u"),
        ),
        *(storage.orphans("session", 1), storage.renew("me", 1.0), storage.note("me", b"")),
    ):
        with pytest.raises(ConfigurationError, match="not started"):
            await call
