"""Items of the Responses API, as requests hold them: read into `Message`s, and listed with ids and status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from greenroom.actors.events import Event
from greenroom.actors.messages import Message, Turn


class Open(Struct, frozen=True):
    """Something in the input that only the context can fill: the item an `item_reference` names (`item`), or the call
    that an output answers (`call`). `place`: of the message; `at`: of the item, for errors."""

    place: int
    at: str
    item: str = ""
    call: str = ""


class ReadItems(Struct, frozen=True):
    """Items that were read. `listed`: as `input_items` shows them."""

    messages: tuple[Message, ...]
    listed: tuple[dict[str, Any], ...]
    open: tuple[Open, ...] = ()


class Context(Struct):
    """What an input may refer to: calls (their tools' names, by call id) and items (as listed, by id)."""

    calls: dict[str, str] = {}
    items: dict[str, dict[str, Any]] = {}

    def add(self, items: Sequence[dict[str, Any]]) -> None:
        """Items that were said before: the input's and the output's of an earlier response."""
        raise NotImplementedError


def read_items(value: Any, at: str, new_id: Callable[[], str], label: str = "") -> ReadItems:
    """Read an item list (or text, which is a user's message). `label`: whose `mcp_call`s are the agent's own tools.

    Raises `InvalidRequest` that names what is wrong, like `input[0].content[1]`.
    """
    raise NotImplementedError


def filled(read: ReadItems, context: Context) -> ReadItems:
    """The items with what they refer to. Raises `InvalidRequest` for what is not in the context."""
    raise NotImplementedError


def input_items(turn: Turn) -> list[dict[str, Any]]:
    """A turn's input as items, oldest first: what its request sent; of a turn that came by another protocol, what it
    would have sent here."""
    raise NotImplementedError


def context_of(turn: Turn, events: Sequence[Event]) -> Context:
    """What one turn gives to refer to: its input and its output."""
    raise NotImplementedError


def seal(items: Sequence[dict[str, Any]]) -> str:
    """The `encrypted_content` of a compaction item that stands for these items. Sent back, it is read as them."""
    raise NotImplementedError
