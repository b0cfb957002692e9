"""Regular expressions of JSON schemas that callers send, held to what can be checked in bounded time.

Python's matcher tries every way in which a pattern may fit, and holds the whole process meanwhile. So a pattern that
has too many is refused, and one that has many is applied to short texts only.
"""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

from msgspec import Struct

PATTERN_CHARS = 1_000
STEPS = 10_000_000
"""What one match may cost at worst, in steps of the matcher: a tenth of a second or two."""
SHORTEST = 20
"""A pattern that cannot be applied to texts of so many characters is refused."""
FEW = 50
"""A repetition that may vary by no more than this is counted as that many alternatives."""

_GROUP = re.compile(r"\((?:\?(?:[:=!>]|<[=!]|P?<[A-Za-z_]\w*>|[aimsux-]*[:)]))?", re.ASCII)
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_COUNT = re.compile(r"\{(\d{0,6})(?:(,)(\d{0,6}))?\}", re.ASCII)


class Pattern(Struct, frozen=True):
    """A pattern, and how long a text it may be applied to; none: however long."""

    expression: re.Pattern[str]
    longest: int | None


class _Group:
    """A part of a pattern: in how many `ways` it may fit, and for each of `repeats` in as many as the text is long."""

    __slots__ = ("alternatives", "repeats", "ways")

    def __init__(self) -> None:
        self.alternatives = 1
        self.ways = 1.0
        self.repeats = 0

    @property
    def varies(self) -> bool:
        return self.ways > 1 or self.repeats > 0


@lru_cache(maxsize=512)
def read_pattern(text: str) -> Pattern:
    """The pattern. Raises `ValueError` that says why it is refused."""
    if len(text) > PATTERN_CHARS:
        raise ValueError(f"is longer than {PATTERN_CHARS} characters")
    python = re.sub(r"\(\?<(?![=!])", "(?P<", text)
    if python.endswith("$") and not re.search(r"(?<!\\)(?:\\\\)*\\\$$", python):
        python = python[:-1] + r"\Z"  # Python's own $ lets a line feed follow
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expression = re.compile(python, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is no regular expression that can be read here ({error})") from error
    return Pattern(expression, _longest(_Scanner(text)))


def _longest(scanner: _Scanner) -> int | None:
    """How long a text may be for a match to cost no more than `STEPS`."""
    whole = scanner.scan()
    power = whole.repeats + (0 if scanner.anchored else 1)
    if not power:
        return None
    longest = int((STEPS / whole.ways) ** (1 / power))
    if longest < SHORTEST:
        raise ValueError("may fit in too many ways to be tried")
    return longest


class _Scanner:
    """Walks over a pattern that has been read already, and counts in how many ways it may fit a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.anchored = text.startswith("^")
        self._open = [_Group()]
        self._last: _Group | None = None
        """The group that has just been closed; none after anything else."""

    def scan(self) -> _Group:
        """The whole pattern as one group. Raises `ValueError` for one that may fit in too many ways."""
        position = 0
        while position < len(self.text):
            position = self._step(position)
        whole = self._open.pop()
        whole.ways = _bounded(whole.ways * whole.alternatives)
        return whole

    def _step(self, position: int) -> int:
        char = self.text[position]
        count = _COUNT.match(self.text, position) if char == "{" else None
        if char in "*+?" or count is not None:
            return self._quantifier(position, count)
        if char == "(":
            return self._enter(position)
        self._last = None
        if char == "\\":
            if self.text[position + 1] in "123456789":
                raise ValueError("refers back to a group, which may take very long")
            return position + 2
        if char == "[":
            found = _CLASS.match(self.text, position)
            return found.end() if found else position + 1
        if char == "|":
            self._open[-1].alternatives += 1
            self.anchored = self.anchored and len(self._open) > 1
        elif char == ")":
            self._last = self._close()
        return position + 1

    def _enter(self, position: int) -> int:
        found = _GROUP.match(self.text, position)
        if found is None or (self.text.startswith("(?", position) and found.end() == position + 1):
            raise ValueError("has a kind of group that is not known here")
        self._last = None
        if not found[0].endswith(")"):  # flags alone are no group
            self._open.append(_Group())
        return found.end()

    def _close(self) -> _Group:
        closed = self._open.pop()
        closed.ways = _bounded(closed.ways * closed.alternatives)
        around = self._open[-1]
        around.ways = _bounded(around.ways * closed.ways)
        around.repeats += closed.repeats
        return closed

    def _quantifier(self, position: int, count: re.Match[str] | None) -> int:
        low, high, end = _bounds(self.text[position], position, count)
        around, last = self._open[-1], self._last
        if last is not None and last.varies and (high is None or (last.repeats and high > 1)):
            raise ValueError(
                "repeats something that itself may fit in several ways, which may take very long"
            )
        if last is not None and last.ways > 1:
            assert high is not None
            around.ways = _bounded(around.ways * last.ways ** min(high - 1, 64))
        if high is None or high - low > FEW:
            around.repeats += 1
        else:
            around.ways = _bounded(around.ways * (high - low + 1))
        self._last = None
        return end + 1 if self.text[end : end + 1] in {"?", "+"} else end


def _bounded(ways: float) -> float:
    if ways > STEPS:
        raise ValueError("may fit in too many ways to be tried")
    return ways


def _bounds(char: str, position: int, count: re.Match[str] | None) -> tuple[int, int | None, int]:
    """How often at least and at most, and where the quantifier ends."""
    if count is None:
        return (1 if char == "+" else 0), (1 if char == "?" else None), position + 1
    low = int(count[1] or 0)
    high = int(count[3]) if count[3] else (None if count[2] else low)
    return low, high, count.end()
