"""The conformance kit of leases' stores: what every `Leases` must hold.

Subclass it and say how a store is opened. Stores opened with the same folder are the same store, as two processes see
it; `apart`: false for one that each process has for itself.
"""

from __future__ import annotations

import asyncio
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from greenroom.actors.errors import LeaseHeld
from greenroom.sandbox.leases import (
    Held,
    Lease,
    LeaseChange,
    LeaseKey,
    Leases,
    LeaseState,
    Person,
    SharedLeases,
)
from kits.in_turn import TRICKY_KEYS

KEY = LeaseKey("u", "s", "browser")
STATES: tuple[LeaseState, ...] = ("making", "ready", "free", "ending")
PERSONS: tuple[Person, ...] = ("no", "has", "had")


def lease(number: int = 1, key: LeaseKey | None = KEY, **fields: Any) -> Lease:
    """A record whose id is `number`."""
    record = Lease(
        id=f"{number:032x}", key=key, owner="me", backend="fake", state="making", created=float(number)
    )
    return msgspec.structs.replace(record, **fields)


class LeasesKit(ABC):
    """The tests."""

    apart: ClassVar[bool] = False

    @abstractmethod
    def leases(self, folder: Path) -> Leases:
        """A store, not yet started."""

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Leases]:
        leases = self.leases(folder)
        await leases.start()
        try:
            yield leases
        finally:
            await leases.stop()

    async def test_it_may_be_started_and_stopped_twice(self, tmp_path: Path) -> None:
        leases = self.leases(tmp_path)
        await leases.start()
        await leases.start()
        assert await leases.all() == []
        await leases.stop()
        await leases.stop()

    async def test_what_was_added_is_there_oldest_first(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            newer, older = lease(2, None), lease(1)
            await leases.add(newer)
            await leases.add(older)
            assert await leases.all() == [older, newer]

    async def test_a_key_has_one_lease_whoever_s_and_in_whatever_state(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            await leases.add(lease(1))
            for state in STATES:
                assert await leases.change(lease(1).id, LeaseChange(state=state))
                with pytest.raises(LeaseHeld):
                    await leases.add(lease(2, owner="somebody else"))
            await leases.erase(lease(1).id)
            await leases.add(lease(2))
            assert await leases.all() == [lease(2)]

    async def test_another_kind_is_another_key(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            await leases.add(lease(1))
            await leases.add(lease(2, KEY._replace(kind="base")))
            assert len(await leases.all()) == 2

    async def test_of_keys_that_look_alike_each_has_its_own(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            keys = [LeaseKey(*key, "browser") for key in (*TRICKY_KEYS, ("\ud800", "\udfff"))]
            for number, key in enumerate(keys):
                await leases.add(lease(number, key))
            assert [found.key for found in await leases.all()] == keys

    async def test_warm_ones_have_no_key_until_they_get_one(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            for number in (1, 2, 3):
                await leases.add(lease(number, None))
            assert await leases.change(lease(2).id, LeaseChange(state="ready", key=KEY))
            with pytest.raises(LeaseHeld):
                await leases.change(lease(3).id, LeaseChange(state="ready", key=KEY))
            assert [found.key for found in await leases.all()] == [None, KEY, None]
            assert await leases.change(lease(2).id, LeaseChange(state="ending"))
            assert (await leases.all())[1] == lease(2, state="ending")

    async def test_only_who_has_seen_the_newest_epoch_changes_it_by_epoch(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            await leases.add(lease())
            taking = LeaseChange(state="ready", owner="you", person="has")
            assert not await leases.change(lease().id, taking, epoch=1)
            assert await leases.change(lease().id, taking, epoch=0)
            assert not await leases.change(lease().id, taking, epoch=0)
            assert await leases.all() == [lease(state="ready", owner="you", person="has", epoch=1)]
            assert await leases.change(lease().id, LeaseChange(state="free"))  # whoever's
            assert await leases.change(lease().id, LeaseChange(state="ready"), epoch=1)
            assert await leases.all() == [lease(state="ready", owner="you", person="has", epoch=2)]

    async def test_of_many_that_would_take_one_over_at_once_one_does(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as first, self.opened(tmp_path) as second:
            await first.add(lease())
            stores = (first, first) if self.apart else (first, second)
            tries = [
                stores[number % 2].change(lease().id, LeaseChange(state="ready", owner=str(number)), epoch=0)
                for number in range(20)
            ]
            assert sum(await asyncio.gather(*tries)) == 1
            [found] = await first.all()
            assert found.epoch == 1

    async def test_a_key_that_was_given_up_may_have_another_lease(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            await leases.add(lease(1))
            assert await leases.change(lease(1).id, LeaseChange(state="ending", keyless=True), epoch=0)
            await leases.add(lease(2))
            assert [found.key for found in await leases.all()] == [None, KEY]

    async def test_one_that_is_gone_cannot_be_changed_and_erasing_it_is_fine(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            assert not await leases.change(lease().id, LeaseChange(state="ready"))
            assert not await leases.change(lease().id, LeaseChange(state="ready", key=KEY))
            await leases.erase(lease().id)
            assert await leases.all() == []

    async def test_of_many_that_want_a_key_at_once_one_gets_it(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as first, self.opened(tmp_path) as second:
            stores = (first, first) if self.apart else (first, second)
            tries = [stores[number % 2].add(lease(number)) for number in range(20)]
            ended = await asyncio.gather(*tries, return_exceptions=True)
            assert sum(isinstance(error, LeaseHeld) for error in ended) == 19
            assert len(await first.all()) == 1

    async def test_what_is_cancelled_is_done_before_what_comes_later_or_never(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as leases:
            for number in range(20):
                adding = asyncio.create_task(leases.add(lease(number)))
                await asyncio.sleep(0)
                adding.cancel()
                await leases.erase(lease(number).id)
                await asyncio.gather(adding, return_exceptions=True)
                assert await leases.all() == []

    def test_it_does_as_a_dictionary_does(self) -> None:
        kit = self

        class Against(LeasesMachine):
            def open(self, folder: Path) -> Leases:
                return kit.leases(folder)

        run_state_machine_as_test(Against, settings=settings(max_examples=20, stateful_step_count=30))


class SharedLeasesKit(LeasesKit):
    """What `SharedLeases` must hold besides. `renewals`: how long news of others may take."""

    renewals: ClassVar[float] = 10.0

    @abstractmethod
    def leases(self, folder: Path) -> SharedLeases:
        """A store, not yet started."""

    @asynccontextmanager
    async def sharing(self, folder: Path) -> AsyncIterator[SharedLeases]:
        leases = self.leases(folder)
        await leases.start()
        try:
            yield leases
        finally:
            await leases.stop()

    async def test_a_key_s_lease_is_found_by_whoever_looks(self, tmp_path: Path) -> None:
        async with self.sharing(tmp_path) as first, self.sharing(tmp_path) as second:
            assert await second.find(KEY) is None
            await first.add(lease(1))
            await first.add(lease(2, None))
            assert await second.find(KEY) == Held(lease(1), gone=False)
            await first.change(lease(1).id, LeaseChange(state="ending", keyless=True))
            assert await second.find(KEY) is None
            await first.change(lease(2).id, LeaseChange(state="ready", key=KEY))
            assert await second.find(KEY) == Held(lease(2, state="ready"), gone=False)
            assert first.place == second.place != ""

    async def test_that_an_owner_is_gone_is_known_until_another_takes_over(self, tmp_path: Path) -> None:
        async with self.sharing(tmp_path) as second:
            async with self.sharing(tmp_path) as first:
                await first.add(lease())
            assert await second.find(KEY) == Held(lease(), gone=True)
            assert await second.change(lease().id, LeaseChange(state="ready", owner="you"), epoch=0)
            assert await second.find(KEY) == Held(lease(state="ready", owner="you", epoch=1), gone=False)

    async def test_who_owns_a_lease_hears_that_it_is_asked_for(self, tmp_path: Path) -> None:
        heard: list[str] = []
        asked = asyncio.Event()

        def hear(lease_id: str) -> None:
            heard.append(lease_id)
            asked.set()

        async with self.sharing(tmp_path) as first, self.sharing(tmp_path) as second:
            first.when_told(hear, heard.append)
            await first.add(lease())
            await second.ask(lease().id)
            async with asyncio.timeout(self.renewals):
                await asked.wait()
            await second.ask(lease(7).id)  # there is none
        assert heard == [lease().id]


KEYS = st.sampled_from([None, KEY, KEY._replace(kind="base"), KEY._replace(user_id="v")])
NUMBERS = st.integers(0, 5)


class LeasesMachine(RuleBasedStateMachine):
    """Operations in any order, carried out on a store and on a dictionary."""

    def open(self, folder: Path) -> Leases:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.leases = self.open(Path(self.folder.name))
        self.model: dict[str, Lease] = {}
        self.runner.run(self.leases.start())

    def teardown(self) -> None:
        self.runner.run(self.leases.stop())
        self.runner.close()
        self.folder.cleanup()

    def taken(self, key: LeaseKey | None, but: str) -> bool:
        return key is not None and any(found.key == key and found.id != but for found in self.model.values())

    @rule(number=NUMBERS, key=KEYS)
    def add(self, number: int, key: LeaseKey | None) -> None:
        new = lease(number, key)
        if new.id in self.model:
            return  # ids are unique for ever
        try:
            self.runner.run(self.leases.add(new))
        except LeaseHeld:
            assert self.taken(key, new.id)
        else:
            assert not self.taken(key, new.id)
            self.model[new.id] = new

    @rule(number=NUMBERS, state=st.sampled_from(STATES), key=KEYS)
    def change(self, number: int, state: LeaseState, key: LeaseKey | None) -> None:
        self.carry_out(number, LeaseChange(state=state, key=key), None)

    @rule(
        number=NUMBERS,
        state=st.sampled_from(STATES),
        owner=st.sampled_from([None, "you"]),
        person=st.sampled_from([None, *PERSONS]),
        keyless=st.booleans(),
        epoch=st.integers(0, 3),
    )
    def change_of_an_epoch(
        self,
        number: int,
        state: LeaseState,
        owner: str | None,
        person: Person | None,
        keyless: bool,
        epoch: int,
    ) -> None:
        change = LeaseChange(state=state, owner=owner, person=person, keyless=keyless)
        self.carry_out(number, change, epoch)

    def carry_out(self, number: int, change: LeaseChange, epoch: int | None) -> None:
        old = self.model.get(lease(number).id)
        fits = old is not None and epoch in {None, old.epoch}
        try:
            changed = self.runner.run(self.leases.change(lease(number).id, change, epoch=epoch))
        except LeaseHeld:
            assert old is not None
            assert fits
            assert self.taken(change.key, old.id)
        else:
            assert changed == fits
            if old is not None and fits:
                assert not self.taken(change.key, old.id)
                self.model[old.id] = msgspec.structs.replace(
                    old,
                    state=change.state,
                    key=None if change.keyless else change.key or old.key,
                    owner=change.owner or old.owner,
                    person=change.person or old.person,
                    epoch=old.epoch + (0 if epoch is None else 1),
                )

    @rule(number=NUMBERS)
    def erase(self, number: int) -> None:
        self.runner.run(self.leases.erase(lease(number).id))
        self.model.pop(lease(number).id, None)

    @rule()
    def open_again(self) -> None:
        self.runner.run(self.leases.stop())
        self.runner.run(self.leases.start())

    @invariant()
    def the_same_are_there(self) -> None:
        if hasattr(self, "leases"):
            found = self.runner.run(self.leases.all())
            assert found == sorted(self.model.values(), key=lambda one: one.created)
