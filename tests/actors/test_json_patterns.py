"""Patterns of callers: what they match, which are refused, and that none takes long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenroom.actors.json_patterns import read_pattern

PIECE = st.sampled_from(["a", "b", ".", "[ab]", r"\w", "(a|b)", "(?:ab)", "(a?)", "(b*)"])
QUANTIFIER = st.sampled_from(["", "", "?", "*", "+", "{2}", "{1,3}", "{2,}", "*?"])
PATTERNS = st.lists(st.tuples(PIECE, QUANTIFIER).map("".join), min_size=1, max_size=6).map("".join)


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("b", "abc", "ac"),
        (r"^\d{4}$", "2026", "2026\n"),
        (r"^\d$", "1", "\N{ARABIC-INDIC DIGIT ONE}"),
        (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "ada@example.org", "ada"),
        (r"^(\d{1,3}\.){3}\d{1,3}$", "192.0.2.1", "192.0.2"),
        (r"^(?<year>\d{4})-(?:\d\d)$", "2026-02", "26-02"),
        (r"^\$$", "$", ""),
        (r"^(?=.*\d)[a-z\d]+$", "a1", "a"),
        ("^(red|green|blue)$", "green", "greenish"),
    ],
)
def test_what_patterns_match(pattern: str, fits: str, does_not: str) -> None:
    expression = read_pattern(pattern).expression
    assert expression.search(fits)
    assert not expression.search(does_not)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+$",
        "(a|a)*$",
        "(a|ab)*$",
        "(?:a?){40}a",
        "a?" * 40,
        "(x{1,50}){1,50}",
        r"(\w+)\1",
        "((a*)*)*",
        ".*.*.*.*.*.*.*=",
        "(",
        "a**",
        r"\p{L}",
        "(?(1)a|b)",
        "x" * 2_000,
    ],
)
def test_what_may_take_long_or_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_pattern(pattern)


def test_what_cannot_try_long_has_no_bound_and_what_can_has_one() -> None:
    assert read_pattern("^[A-Z]{2}-[0-9]{1,9}$").longest is None
    longest = read_pattern(r"^[^@]+@[^@]+\.[^@]+$").longest
    assert longest is not None
    assert 100 < longest < 1_000


@pytest.mark.blocks_loop
@settings(max_examples=40)
@given(pattern=PATTERNS, text=st.text("ab", min_size=30, max_size=60))
def test_none_that_is_taken_takes_long(pattern: str, text: str) -> None:
    try:
        read = read_pattern(pattern + "$")
    except ValueError:
        return
    text = (text * 100)[: read.longest] if read.longest is not None else text * 100
    before = time.perf_counter()
    read.expression.search(text + "!")
    assert time.perf_counter() - before < 3.0
