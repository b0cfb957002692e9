"""Readable logs for a server process: time, level, logger, message; or one line of JSON a record."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Final, Literal, TextIO, TypeAlias

import msgspec

LogFormat: TypeAlias = Literal["text", "json"]
LEVELS: Final = ("debug", "info", "warning", "error", "critical")

TALKATIVE: Final = ("httpcore", "httpx", "httpx2", "openai")
"""Loggers of model clients, which tell of every call at INFO: under load a line or more a turn that says nothing."""

_COLOURS: Final = {
    logging.DEBUG: "2",
    logging.INFO: "32",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}


class TextFormatter(logging.Formatter):
    """`12:30:01.250 INFO    greenroom: message`, with the level in colour where asked."""

    default_time_format = "%H:%M:%S"
    default_msec_format = "%s.%03d"

    def __init__(self, colour: bool) -> None:
        level = "%(tint)s%(levelname)-7s%(plain)s" if colour else "%(levelname)-7s"
        super().__init__(f"%(asctime)s {level} %(name)s: %(message)s")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        if self._colour:
            record.tint = f"\x1b[{_COLOURS.get(record.levelno, '0')}m"
            record.plain = "\x1b[0m"
        return super().format(record)


class JSONFormatter(logging.Formatter):
    """One object a record: `time` (ISO 8601, UTC), `level`, `logger`, `message`, and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().encode("utf-8", "replace").decode(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info).encode("utf-8", "replace").decode()
        return msgspec.json.encode(entry).decode()


def configure_logging(
    level: str = "info", log_format: LogFormat = "text", stream: TextIO | None = None
) -> None:
    """Send all logs of the process to `stream` (standard error), in place of handlers that were there before.

    Colours are used on a terminal, unless the environment has NO_COLOR. What model clients tell of each call is shown
    at level debug only.
    """
    target = sys.stderr if stream is None else stream
    colour = target.isatty() and not os.environ.get("NO_COLOR")
    handler = logging.StreamHandler(target)
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter(colour))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    threshold = logging.root.level
    for name in TALKATIVE:
        # NOTSET: as the root has it. Else not below the root's, which a logger's own level goes before.
        quiet = logging.NOTSET if threshold <= logging.DEBUG else max(threshold, logging.WARNING)
        logging.getLogger(name).setLevel(quiet)
