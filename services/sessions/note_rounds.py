"""Words for owners, of one kind, that share notes where many are said at once.

Each kind has its rounds: however many words there are of one, those of the other do not wait behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from msgspec import Struct, field

from greenroom.actors.errors import StoreUnavailable

T = TypeVar("T")

APART: Final = 0.25
"""Between two notes of one kind for one owner, seconds, when `AT_ONCE` were left in a row."""
AT_ONCE: Final = 16
TURNS: Final = 256
"""In one note, at most."""


class _Word(Struct, Generic[T], eq=False):
    """What is to be said of a turn. `outcome`: whether there was one to tell, why nobody could be; none: it waits."""

    said: T
    outcome: bool | StoreUnavailable | None = None


class _Round(Struct, Generic[T], eq=False):
    """What is to be said to one owner. `due`: when it may be left a note, by the loop's clock."""

    due: float
    words: list[_Word[T]] = field(default_factory=list)
    order: asyncio.Lock = field(default_factory=asyncio.Lock)


class NoteRounds(Generic[T]):
    """Leaves words in notes. `leave`: leaves one note for an owner, of at most `TURNS` words; whether it lives."""

    def __init__(self, leave: Callable[[str, Sequence[T]], Awaitable[bool]]) -> None:
        self._leave = leave
        self._rounds: dict[str, _Round[T]] = {}

    def __repr__(self) -> str:
        return f"<NoteRounds for {len(self._rounds)} owners>"

    async def say(self, owner: str, said: T) -> bool:
        """Say it to the owner. Whether that lives. Raises `StoreUnavailable`."""
        word = _Word(said)
        told = self._round(owner)
        told.words.append(word)
        loop = asyncio.get_running_loop()
        try:
            async with told.order:  # whoever has his turn says what all have to say that wait by then
                while word.outcome is None:
                    await asyncio.sleep(told.due - loop.time())
                    told.due = max(told.due, loop.time() - AT_ONCE * APART) + APART
                    await self._say(owner, told)
        finally:
            if word.outcome is None:  # it was given up, and is not said any more
                word.outcome = False
        if isinstance(word.outcome, StoreUnavailable):
            raise StoreUnavailable(word.outcome.message)
        return word.outcome

    def _round(self, owner: str) -> _Round[T]:
        found = self._rounds.get(owner)
        if found is None:
            rested = asyncio.get_running_loop().time() - AT_ONCE * APART
            self._rounds = {
                name: one for name, one in self._rounds.items() if one.order.locked() or one.due > rested
            }
            found = self._rounds[owner] = _Round(rested)
        return found

    async def _say(self, owner: str, told: _Round[T]) -> None:
        told.words = [word for word in told.words if word.outcome is None]
        words = told.words[:TURNS]
        outcome: bool | StoreUnavailable
        try:
            outcome = await self._leave(owner, [word.said for word in words])
        except StoreUnavailable as error:
            outcome = error
        for word in words:
            word.outcome = outcome
