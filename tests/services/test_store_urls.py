"""Stores by URL."""

from __future__ import annotations

import gc
from inspect import signature
from pathlib import Path

import pytest

from greenroom.actors.errors import ConfigurationError
from greenroom.services.postgres.storage import PostgresStorage
from greenroom.services.redis.storage import RedisStorage
from greenroom.services.sessions.durable_store import DurableSessions
from greenroom.services.sessions.memory_store import InMemoryStore
from greenroom.services.sqlite.store import SqliteStore
from greenroom.services.store import TurnCommit
from greenroom.services.store_urls import USUAL_ANSWER, USUAL_LEASE, storage_at, store_at
from kits.store_kit import KEY, record


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places of this test alone: what another test named lives for as long as its garbage does."""
    monkeypatch.chdir(tmp_path)


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
    assert store.path == Path(path).absolute()


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
        ("mysql://localhost/friday", "in memory"),
        ("redis", "in memory"),
        ("friday.db", "sqlite:///friday.db"),
        ("", "sqlite:///friday.db"),
        ("sqlite:friday.db", "three slashes"),
        ("sqlite:/friday.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "three slashes"),
        ("sqlite://friday.db", "three slashes"),
        ("sqlite:///friday.db#1", "three slashes"),
        ("sqlite:///fri%00day.db", "three slashes"),
        ("sqlite:///:memory:", '"memory"'),
        ("sqlite:///friday.db?prefix=x", "unknown"),
        (
            "sqlite:///friday.db?turns=3",
            "unknown; there are turns_kept, states_kept, session_bytes, logs_kept",
        ),
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


def test_a_place_has_one_storage() -> None:
    storage = storage_at("sqlite:///friday.db?busy_seconds=3")
    store = store_at(f"sqlite:///{Path('friday.db').absolute()}?turns_kept=3")
    assert isinstance(store, SqliteStore)
    assert store.storage is storage
    assert storage_at("sqlite:///friday.db") is storage
    assert storage_at("sqlite:///saturday.db") is not storage
    del storage, store
    gc.collect()
    assert storage_at("sqlite:///friday.db?busy_seconds=4") is not None  # nobody has the other any more


def test_a_place_that_was_named_with_other_options_is_not_taken_for_the_same() -> None:
    storage = storage_at("sqlite:///sunday.db?idle_seconds=100")
    with pytest.raises(ConfigurationError, match="another idle_seconds"):
        store_at("sqlite:///sunday.db?idle_seconds=200")
    with pytest.raises(ConfigurationError, match="another busy_seconds"):
        store_at("sqlite:///sunday.db?busy_seconds=1")
    assert storage_at("sqlite:///sunday.db?idle_seconds=100") is storage


@pytest.mark.parametrize("scheme", ["redis", "rediss", "postgresql", "postgres"])
def test_options_are_told_apart_and_passwords_stay_unsaid(scheme: str) -> None:
    url = f"{scheme}://friday:secret@localhost/0?protocol=3&idle_seconds=0"
    with pytest.raises(ConfigurationError, match="idle_seconds is more than 0") as refused:
        store_at(url)
    assert "secret" not in str(refused.value)
    assert "friday:***@localhost" in str(refused.value)


SERVERS = ("redis://localhost/0", "postgresql://localhost/db")


@pytest.mark.parametrize("place", ["sqlite:///friday.db", *SERVERS])
def test_a_lease_that_never_ends_is_refused_whatever_the_engine(place: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"lease_seconds=inf'.*lease_seconds=inf is not .* up to 86400"
    ):
        store_at(f"{place}?lease_seconds=inf")


@pytest.mark.parametrize("place", SERVERS)
def test_a_process_waits_for_an_answer_for_less_than_its_lease(place: str) -> None:
    asked = ("answer_seconds=8", "answer_seconds=5&lease_seconds=9", "answer_seconds=29&lease_seconds=50")
    for number, query in enumerate(asked):  # each of a place of its own
        with pytest.raises(
            ConfigurationError, match=f"{query}': answer_seconds=.* is more than half of lease_seconds="
        ):
            store_at(f"{place}{number}?{query}")
    for number, query in enumerate(
        ("answer_seconds=7.5", "lease_seconds=10", "answer_seconds=1&lease_seconds=2"), 3
    ):
        assert isinstance(store_at(f"{place}{number}?{query}"), DurableSessions)


@pytest.mark.parametrize("place", SERVERS)
def test_a_short_lease_shortens_the_answers_of_a_place_of_which_nothing_else_was_said(place: str) -> None:
    store = store_at(f"{place}?lease_seconds=6")
    assert isinstance(store, DurableSessions)
    assert storage_at(f"{place}?answer_seconds=2") is store.storage
    assert isinstance(store_at(f"{place}?lease_seconds=4"), DurableSessions)
    with pytest.raises(ConfigurationError, match="answer_seconds=2 is more than half of lease_seconds=3"):
        store_at(f"{place}?lease_seconds=3")
    usual = store_at(f"{place}0?lease_seconds=60")
    assert isinstance(usual, DurableSessions)
    with pytest.raises(ConfigurationError, match="another answer_seconds"):
        storage_at(f"{place}0?answer_seconds=20")


def test_what_was_said_of_a_place_before_counts_too() -> None:
    storage = storage_at("redis://localhost/9?answer_seconds=8")  # a service's, which has no lease
    with pytest.raises(ConfigurationError, match="answer_seconds=8 is more than half of lease_seconds=15"):
        store_at("redis://localhost/9")
    assert isinstance(store_at("redis://localhost/9?lease_seconds=16"), DurableSessions)
    del storage


def test_what_is_usual_is_said_once() -> None:
    usual = {
        DurableSessions: {"lease_seconds": USUAL_LEASE},
        RedisStorage: {"answer_seconds": USUAL_ANSWER},
        PostgresStorage: {"answer_seconds": USUAL_ANSWER},
    }
    for made, options in usual.items():
        parameters = signature(made).parameters
        assert {name: parameters[name].default for name in options} == options


@pytest.mark.parametrize(
    ("place", "part"), [("redis://localhost/0", "prefix"), ("postgresql://localhost/db", "schema")]
)
def test_a_server_has_as_many_storages_as_are_named_in_it(place: str, part: str) -> None:
    one, two = storage_at(f"{place}?{part}=one"), storage_at(f"{place}?{part}=two")
    assert one is not two
    assert storage_at(f"{place}?{part}=one") is one
    usual = storage_at(place)
    assert storage_at(f"{place}?{part}=greenroom") is usual
