"""Stores by URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.services.memory_store import InMemoryStore
from greenroom.services.sqlite_store import SqliteStore
from greenroom.services.store import TurnCommit
from greenroom.services.store_urls import store_at
from kits.store_kit import KEY, record


def test_memory_is_a_store_in_memory() -> None:
    assert isinstance(store_at("memory"), InMemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///friday.db", "friday.db"),
        ("sqlite:///data/friday.db", "data/friday.db"),
        ("sqlite:////var/lib/friday.db", "/var/lib/friday.db"),
        ("sqlite:///what%3F%23100%25.db", "what?#100%.db"),
        ("sqlite:///my friday.db?turns_kept=2", "my friday.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    store = store_at(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)


async def test_options_are_the_store_s_bounds(tmp_path: Path) -> None:
    store = store_at(
        f"sqlite:///{tmp_path}/friday.db"
        "?turns_kept=2&states_kept=1&session_bytes=100000&idle_seconds=1e6&busy_seconds=0.5"
    )
    await store.start()
    for number in range(3):
        await store.commit(KEY, TurnCommit(record(number)))
    kept = await store.load(KEY)
    assert kept is not None
    assert len(kept.turns) == 2
    await store.stop()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://localhost", "in memory"),
        ("postgresql://localhost/friday", "in memory"),
        ("friday.db", "sqlite:///friday.db"),
        ("", "sqlite:///friday.db"),
        ("redis://[", "in memory"),
        ("sqlite:friday.db", "three slashes"),
        ("sqlite:/friday.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite://friday.db", "three slashes"),
        ("sqlite:///friday.db#1", "three slashes"),
        ("sqlite:///fri%00day.db", "three slashes"),
        ("sqlite:///:memory:", '"memory"'),
        ("sqlite:///friday.db?turns=3", "unknown; there are turns_kept, states_kept"),
        ("sqlite:///friday.db?turns_kept=3&turns_kept=4", "twice"),
        ("sqlite:///friday.db?turns_kept=many", "is a whole number, not 'many'"),
        ("sqlite:///friday.db?turns_kept=", "is a whole number, not ''"),
        ("sqlite:///friday.db?turns_kept=0", "more than 0"),
        ("sqlite:///friday.db?idle_seconds=nan", "more than 0"),
        ("sqlite:///friday.db?busy_seconds=-1", "more than 0"),
        ("sqlite:///friday.db?session_bytes=1.5", "is a whole number"),
    ],
)
def test_other_urls_are_refused_in_words(url: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        store_at(url)
    assert repr(url) in str(refused.value)
    assert why in str(refused.value)
