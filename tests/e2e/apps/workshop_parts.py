"""What the workshops of both lines share: doors that tools wait at, notes of hooks, a look at what is kept."""

import asyncio
import os
import socket
from contextvars import ContextVar
from pathlib import Path

from greenroom import Limits, Message, SessionKey, Text

IDLE = float(os.environ.get("IDLE", "300"))
"""Sessions and turns that nobody has used for so many seconds may be forgotten."""
MESSAGES_KEPT = int(os.environ.get("MESSAGES_KEPT", "2000"))
"""Of each session."""
LIMITS = Limits(idle_seconds=IDLE, kept_seconds=IDLE)

caller = ContextVar("caller", default="nobody")
"""Set by handlers: whose turn it is. Tools tell it."""


def note(text):
    if path := os.environ.get("NOTES"):
        with Path(path).open("a") as notes:
            notes.write(text + "\n")


def wait_at(door):
    """Block until whoever listens at the door (host:port) has said something and hung up."""
    host, _, port = door.partition(":")
    with socket.create_connection((host, int(port))) as connection, connection.makefile() as heard:
        return f"{caller.get()} heard {heard.read()}"


async def await_at(door):
    """The same without blocking."""
    host, _, port = door.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        return f"{caller.get()} heard {(await reader.read()).decode()}"
    finally:
        writer.close()


def text_of(message: Message):
    return "".join(part.text for part in message.content if isinstance(part, Text))


async def log_of(store, user, session):
    """The turns the actor recorded: [status, what was asked, what was answered]."""
    record = await store.load(SessionKey(user, session))
    turns = record.turns if record is not None else ()
    return [
        [turn.status, "".join(map(text_of, turn.input)), "".join(map(_answered, turn.output))]
        for turn in turns
    ]


def _answered(item):
    return "".join(part.text for part in item.parts if item.kind == "message" and isinstance(part, Text))


async def history_of(service, user, session):
    """What the history service has: [role, text] of what was said."""
    kept = await service.get_session(user, session)
    return spoken((message.role, text_of(message)) for message in kept.messages if message.type == "message")


def spoken(lines):
    """Of [role, text] those that somebody said: not the notes that AgentScope 2.x puts between, such as the time."""
    return [[role, text] for role, text in lines if text and not text.startswith("<system-")]
