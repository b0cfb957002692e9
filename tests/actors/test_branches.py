"""Any tree of turns that continue from each other: each remembers exactly its own branch."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from greenroom.actors.errors import ContinuationNotFound
from greenroom.actors.events import TurnCompleted
from greenroom.actors.log import TurnLog
from greenroom.actors.messages import SessionKey
from greenroom.actors.system import ActorSystem
from kits.remembering import SlowStore, Tutorial, heard, new_memory, tell
from kits.system import running_system, turn
from kits.virtual_time import virtual_time

KEY = SessionKey("u", "s")


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 20), st.sampled_from(["say", "say", "fail", "unkept"])), max_size=14
    )
)
async def test_any_tree_of_turns_remembers_exactly_its_branch(steps: list[tuple[int, str]]) -> None:
    """Each turn continues from any earlier one: what it finds is what the turns on its way from the root said."""
    tutorial = Tutorial()
    await tutorial.start()
    branches: dict[str, list[str]] = {}
    logs: dict[str, TurnLog] = {}
    async with (
        running_system(new_memory, agent=True) as agents,
        running_system(tutorial.answer) as queries,
    ):
        for number, (choice, kind) in enumerate(steps):
            parent = list(branches)[choice % len(branches)] if branches else None
            name = f"{kind}{number}"
            before = branches[parent] if parent is not None else []
            for system in (agents, queries):
                key = logs[f"{id(system)}{parent}"].turn.key if parent is not None else KEY
                log = await tell(system, name, session=key.session_id, after=parent, kept=kind != "unkept")
                logs[f"{id(system)}{name}"] = log
                if kind != "fail":
                    texts = [one for one in before if not one.startswith("fail")]
                    assert heard(log).split(" | ")[0].split() == [*texts, name]
            if kind != "unkept":
                branches[name] = [*before, name]


STEP = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 20), st.sampled_from(["say", "wait", "fail"])),
    st.tuples(st.just("cancel"), st.integers(0, 20), st.just("")),
    st.tuples(st.just("sleep"), st.integers(0, 12), st.just("")),
    st.tuples(st.just("passivate"), st.just(0), st.just("")),
)


@virtual_time
@given(steps=st.lists(STEP, max_size=14))
async def test_any_interleaving_remembers_exactly_its_branch(steps: list[tuple[str, int, str]]) -> None:
    """The same with turns at once, cancelled and waiting, and a store that takes its time."""
    submits: list[asyncio.Task[None]] = []
    tree = Tree()
    async with running_system(new_memory, agent=True, store=SlowStore()) as system:
        for number, (action, choice, kind) in enumerate(steps):
            if action == "say":
                parent = tree.any(choice) if choice else None
                submits.append(asyncio.create_task(tree.grow(system, f"{kind}{number}", parent)))
            elif action == "cancel" and tree.logs:
                await system.cancel(str(tree.any(choice)))
            elif action == "sleep":
                await asyncio.sleep(choice)
            elif action == "passivate":
                system._roster.passivate_all()
            await asyncio.sleep(0)
        await asyncio.gather(*submits)
        for log in tree.logs.values():
            await log.ended()
    for name, log in tree.logs.items():
        if isinstance(log.terminal, TurnCompleted):
            assert heard(log).split() == tree.branch(name)


class Tree:
    """Turns, each with the one that it continues from."""

    def __init__(self) -> None:
        self.logs: dict[str, TurnLog] = {}
        self._parents: dict[str, str | None] = {}

    def any(self, choice: int) -> str | None:
        return list(self.logs)[choice % len(self.logs)] if self.logs else None

    async def grow(self, system: ActorSystem, name: str, parent: str | None) -> None:
        before = self.logs[parent] if parent is not None else None
        session = before.turn.key.session_id if before is not None else f"of {name}"
        try:
            log = await system.submit(turn(name, id=name, session=session, after=parent))
        except ContinuationNotFound:
            assert before is not None
            assert len(before) == 2, "it was accepted and cancelled, and never began"
        else:
            self.logs[name], self._parents[name] = log, parent

    def branch(self, name: str | None) -> list[str]:
        """What went well on the way from the root to a turn."""
        names: list[str] = []
        while name is not None:
            if isinstance(self.logs[name].terminal, TurnCompleted):
                names.insert(0, name)
            name = self._parents[name]
        return names
