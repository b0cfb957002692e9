"""Gives each session its sandboxes: the keeper's boxes, by session and user, held while a turn may use them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeAlias
from weakref import WeakValueDictionary

from greenroom.actors.errors import ConfigurationError, TurnOver
from greenroom.actors.messages import SessionKey
from greenroom.sandbox.backend import BoxKind
from greenroom.sandbox.base_sandbox import BaseSandbox
from greenroom.sandbox.browser_sandbox import BrowserSandbox
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings
from greenroom.sandbox.standalone import started_keeper
from greenroom.services.sandbox_uses import InStorage, SandboxUses, by
from greenroom.services.service import not_started
from greenroom.services.started import note_start, note_stop
from greenroom.services.storage import Storage
from greenroom.services.work import Work, current_work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from greenroom.sandbox.client import BoxClient
    from greenroom.sandbox.keeper import Keeper
    from greenroom.sandbox.leases import Leases

OnPassivate: TypeAlias = Literal["keep", "release"]

KINDS: Final[Mapping[BoxKind, type[BaseSandbox]]] = {"browser": BrowserSandbox, "base": BaseSandbox}
"""The sandboxes there are, by `sandbox_types`."""

BRANCHED: Final = (
    "the conversation branched off at an earlier turn, and the sandbox stayed with the other branch"
)


class SandboxService:
    """Sandboxes of sessions. A box is made at the first use of a tool, and is the same until it is released.

    `base_url`, `bearer_token`: a box that runs elsewhere, and its token: short for `SandboxSettings(backend=…,
    token=…)`. `settings`: how boxes are made; none: what the environment says. `on_passivate`: whether a session that
    is put away for being idle keeps its box (for `settings.idle_seconds`) or releases it. `drain_on_stop` is of
    AgentScope Runtime: no box outlives its service here, unless processes share their leases. `leases`: where these are
    kept; none: in a file of this user's, or, in an application whose sessions are in a store that processes share, in
    that store (`keep_leases_in`). `keeper`: how the keeper of its boxes is made and started.
    """

    def __init__(
        self,
        base_url: str | None = None,
        bearer_token: str | None = None,
        drain_on_stop: bool = True,
        *,
        settings: SandboxSettings | None = None,
        on_passivate: OnPassivate = "keep",
        leases: Leases | None = None,
        keeper: Callable[[SandboxSettings, Leases | None], Awaitable[Keeper]] = started_keeper,
    ) -> None:
        _check(base_url, drain_on_stop, settings, on_passivate)
        if base_url is not None:
            settings = SandboxSettings(backend=base_url, token=bearer_token)
        self._settings = settings
        self._leases = leases
        self._new_keeper = keeper
        self.on_passivate: OnPassivate = on_passivate
        self._keeper: Keeper | None = None
        self._home: asyncio.AbstractEventLoop | None = None
        self._starting = asyncio.Lock()
        # One object a key while anybody has it; what it is for lies with the keeper.
        self._objects: WeakValueDictionary[LeaseKey, BaseSandbox] = WeakValueDictionary()
        self._turns: set[tuple[Work, LeaseKey]] = set()
        self._taken: set[LeaseKey] = set()
        self.uses = SandboxUses(leases.storage if isinstance(leases, InStorage) else None)

    def __repr__(self) -> str:
        return f"<SandboxService, {self._keeper or 'not started'}>"

    def keep_leases_in(self, storage: Storage) -> None:
        """Keep leases there, unless it was told before where: what is shared there goes from process to process."""
        if self._leases is None and self._keeper is None:
            from greenroom.services.durable_leases import DurableLeases

            self._leases = DurableLeases(storage)
            self.uses = SandboxUses(storage)

    # ------------------------------------------------------------------------------------------------- start and stop

    async def start(self) -> None:
        """Find an engine, and tidy up what dead processes left. Doing it twice is fine.

        Raises `SandboxUnavailable`, which says what is missing and what to do.
        """
        note_start(self)
        async with self._starting:
            if self._keeper is None:
                self._home = asyncio.get_running_loop()
                settings = self._settings or SandboxSettings.from_environ()
                self._keeper = await self._new_keeper(settings, self._leases)

    async def stop(self) -> None:
        """Carry out the calls that were made, then end all boxes, or leave them to other processes that share their
        leases. Doing it twice is fine."""
        async with self._starting:
            keeper = self._keeper
            if keeper is None:
                return
            note_stop(self)
            if keeper.sharing:  # who has a browser keeps it, in the process that goes on with it
                keeper.wait_for_nobody()
            for key in () if keeper.sharing else tuple(self._taken):
                keeper.hand_back(key)
            self._taken.clear()
            await self._end(
                list(self._objects), "the sandbox service was stopped; start it again and connect anew"
            )
            self._keeper = None
            await keeper.stop()

    async def health(self) -> bool:
        """Whether it is ready for use."""
        return self._keeper is not None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    # ---------------------------------------------------------------------------------------------------- connecting

    def connect(
        self, session_id: str, user_id: str | None = None, sandbox_types: Sequence[Any] | None = None
    ) -> list[Any]:
        """The session's sandboxes of these types (`"browser"`: a `BrowserSandbox`, `"base"`: a `BaseSandbox`; none:
        those it has, or else a base one). At once: boxes are made at their first use. The same session, user and type
        give the same sandbox. Inside a turn they are not taken away before it is over.

        Raises `ConfigurationError` for another type, and when the service is not started.
        """
        session = SessionKey(user_id or "", session_id)
        kinds: list[BoxKind] = [_kind(kind) for kind in sandbox_types or () if kind is not None]
        if sandbox_types is None:
            kinds = [kind for kind in KINDS if LeaseKey(*session, kind) in self._objects] or ["base"]
        return [self._connect(LeaseKey(*session, kind)) for kind in kinds]

    def for_session(self, key: SessionKey) -> BrowserSandbox:
        """The session's browser, as `connect` gives it."""
        box = self._connect(LeaseKey(*key, "browser"))
        assert isinstance(box, BrowserSandbox)
        return box

    async def release(self, session_id: str, user_id: str | None = None) -> bool:
        """End the session's sandboxes, after the calls that were made. Objects that are still held refuse further
        ones with `LeaseOver`; `connect` gives new ones. None is fine."""
        await self.forget(SessionKey(user_id or "", session_id))
        return True

    async def forget(self, key: SessionKey) -> None:
        """The same, by the session's key."""
        keys = _keys(key)
        await self._end(keys, "this sandbox was released; connect again for a new one")
        if self._keeper is None:
            self.uses.lose(key)
            return
        for lease_key in keys:
            await self._keeper.release(lease_key)
        await self.uses.forget(key)

    async def fork(self, source: SessionKey, turn_id: str, turns: Sequence[str], target: SessionKey) -> bool:
        """A browser cannot be copied: `target` has none of `source`'s sandboxes, and where its agent has used them by
        that turn it is told so once, before it goes on in an empty one. See `Forkable.fork`."""
        keeper = self._keeper
        if keeper is None:
            return True
        first = by(turn_id, turns, await self.uses.of(source))
        if first:
            await self.uses.keep(target, first)
            for kind in first:
                keeper.bereave(LeaseKey(*target, kind), BRANCHED)
        return True

    async def passivated(self, key: SessionKey) -> None:
        """The session is put away: keep its boxes for a while, or release them, as `on_passivate` says. An agent that
        comes back later is told that its browser is another."""
        if self.on_passivate == "keep" or self._keeper is None:
            return
        for lease_key in _keys(key):
            box = self._objects.get(lease_key)
            if box is not None:
                await box.settled()
            await self._keeper.release(
                lease_key, lost="the session was put away, and its sandbox was released"
            )

    def at_work(self, key: SessionKey, work: Work) -> None:
        """A turn of the session begins: its boxes are held until it is over, and if another process had them, they are
        gone on with here."""
        if self._keeper is not None:
            for lease_key in _keys(key):
                self.hold(self._keeper, lease_key, work, using=False)
                self._keeper.expect(lease_key)

    async def hand_over(self, key: SessionKey) -> None:
        """The session is another process's now: where processes share their leases, its boxes are let go, as they
        are."""
        self.another_had(key)
        if self._keeper is not None:
            for lease_key in _keys(key):
                await self._keeper.hand_over(lease_key)

    def another_had(self, key: SessionKey) -> None:
        """Another process may have had the session meanwhile, or forgotten it."""
        if self.uses.storage is not None:
            self.uses.lose(key)

    # --------------------------------------------------------------------------------------------------- looking in

    def browsing(self, key: SessionKey) -> bool:
        """Whether the session has a browser at this moment."""
        return self._keeper is not None and self._keeper.lease_of(LeaseKey(*key, "browser")) is not None

    def look(self, key: SessionKey) -> AbstractAsyncContextManager[BoxClient]:
        """The client of the session's browser, which stays while somebody looks. Raises a `SandboxError`."""
        return self._started().client(LeaseKey(*key, "browser"), looking=True)

    async def take_over(self, key: SessionKey) -> None:
        """A person takes the browser: the agent's calls of it wait. Returns when none is under way."""
        lease_key = LeaseKey(*key, "browser")
        await self._started().take_over(lease_key)
        self._taken.add(lease_key)

    def hand_back(self, key: SessionKey) -> None:
        """The person is done. Doing it twice is fine."""
        lease_key = LeaseKey(*key, "browser")
        self._taken.discard(lease_key)
        if self._keeper is not None:
            self._keeper.hand_back(lease_key)

    def stops(self, key: SessionKey) -> None:
        """The person's view ends because this process stops. He keeps the browser where another process goes on with
        it; else he is done."""
        if self._keeper is None or not self._keeper.sharing:
            self.hand_back(key)

    # ------------------------------------------------------------------------------------------------------- insides

    def _started(self) -> Keeper:
        if self._keeper is None:
            raise not_started(self)
        return self._keeper

    def _connect(self, key: LeaseKey) -> BaseSandbox:
        keeping = _Keeping(self, self._started())
        keeping.hold(key, using=False)
        box = self._objects.get(key)
        if box is None:
            box = self._objects[key] = KINDS[key.kind].leased(keeping, key, self._home)
        return box

    def hold(self, keeper: Keeper, key: LeaseKey, work: Work, using: bool) -> None:
        """Hold the key until the turn is over. On the home loop."""
        if using:
            with suppress(TurnOver):
                self.uses.stage(self, key, work)
        if (work, key) not in self._turns:
            self._turns.add((work, key))
            held = keeper.hold(key)
            held.__enter__()
            work.when_over(partial(self._let_go, work, key, held))

    def _let_go(self, work: Work, key: LeaseKey, held: AbstractContextManager[None]) -> None:
        self._turns.discard((work, key))
        held.__exit__(None, None, None)

    async def _end(self, keys: Sequence[LeaseKey], why: str) -> None:
        boxes = [box for key in keys if (box := self._objects.pop(key, None)) is not None]
        await asyncio.gather(*(box.settled() for box in boxes))
        for box in boxes:
            box.end(why)

    @property
    def home(self) -> asyncio.AbstractEventLoop:
        """The loop it was started on."""
        assert self._home is not None
        return self._home


class _Keeping:
    """A keeper as sandbox objects see it: what a turn uses is held until it is over."""

    def __init__(self, service: SandboxService, keeper: Keeper) -> None:
        self._service = service
        self._keeper = keeper

    def hold(self, key: LeaseKey, *, using: bool = True) -> None:
        """Hold the key if this is inside a turn, from whatever thread. Not `using`: it is only got ready."""
        work = current_work.get()
        if work is None:
            return
        hold = partial(self._service.hold, self._keeper, key, work, using)
        try:
            here = asyncio.get_running_loop() is self._service.home
        except RuntimeError:
            here = False
        if here:
            hold()
        else:
            self._service.home.call_soon_threadsafe(hold)

    async def call(
        self, key: LeaseKey, tool: str, arguments: Mapping[str, Any], seconds: float | None = None
    ) -> ToolResult:
        """Run one tool in the key's box."""
        self.hold(key)
        return await self._keeper.call(key, tool, arguments, seconds)

    @asynccontextmanager
    async def client(self, key: LeaseKey) -> AsyncIterator[BoxClient]:
        """The client of the key's box."""
        self.hold(key)
        async with self._keeper.client(key) as client:
            yield client

    async def release(self, key: LeaseKey) -> None:
        """End the key's box."""
        await self._keeper.release(key)

    async def stop(self) -> None:
        """The service's keeper stops with the service."""


def _keys(key: SessionKey) -> list[LeaseKey]:
    return [LeaseKey(*key, kind) for kind in ("browser", "base")]


def _kind(given: Any) -> BoxKind:
    name = str(getattr(given, "value", given)).removesuffix("_async")
    for kind in KINDS:
        if kind == name:
            return kind
    raise ConfigurationError(f"sandbox_types=[{name!r}]: there are the types {', '.join(map(repr, KINDS))}")


def _check(
    base_url: str | None, drain_on_stop: bool, settings: SandboxSettings | None, on_passivate: OnPassivate
) -> None:
    if base_url is not None and settings is not None:
        raise ConfigurationError("base_url and settings both say where boxes are; give one of them")
    if not drain_on_stop:
        raise ConfigurationError(
            "drain_on_stop=False: boxes do not outlive their service here (nobody would own them); leave it out"
        )
    if on_passivate not in {"keep", "release"}:
        raise ConfigurationError(f"on_passivate={on_passivate!r}: it is 'keep' or 'release'")
