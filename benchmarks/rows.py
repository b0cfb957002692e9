"""A row of the table: what was measured, what it should be, and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from msgspec import Struct


class Row(Struct, frozen=True):
    """One line. `good`: whether the goal is met; none: there is no goal, or nothing was measured."""

    what: str
    goal: str
    measured: str
    good: bool | None = None
    details: str = ""


def at_least(what: str, goal: float, value: float, details: str = "") -> Row:
    """More is better."""
    return Row(what, f"≥ {goal:g}", f"{value:.2f}", value >= goal, details)


def at_most(what: str, goal: float, value: float, details: str = "", unit: str = "") -> Row:
    """Less is better."""
    return Row(what, f"≤ {goal:g}{unit}", f"{value:.2f}{unit}", value <= goal, details)


def plain(what: str, measured: str, details: str = "") -> Row:
    """Nothing is asked of it."""
    return Row(what, "", measured, None, details)


def skipped(what: str, goal: str, why: str) -> Row:
    """Could not be measured here."""
    return Row(what, goal, "-", None, why)


def spread(values: Sequence[float], unit: str = "") -> str:
    """The middle of some values and how far they lie apart."""
    middle, least, most = (f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in _ends(values))
    return f"{middle}{unit} ({least} to {most})"


def _ends(values: Sequence[float]) -> tuple[float, float, float]:
    return median(values), min(values), max(values)


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    marks = {True: "met", False: "not met", None: ""}
    lines = ["| | goal | measured | | how |", "|---|---|---|---|---|"]
    lines += [f"| {r.what} | {r.goal} | {r.measured} | {marks[r.good]} | {r.details} |" for r in rows]
    return "\n".join(lines) + "\n"
