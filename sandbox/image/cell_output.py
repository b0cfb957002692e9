"""What one cell says, put together from the kernel's messages."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from greenroom.sandbox.image.output import OUTPUT_BYTES, Answer, Kept, answered, image_part, text_part

COLOURS: Final = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
"""Tracebacks come coloured, for terminals."""

EXIT_CODE: Final = re.compile(r"-?\d{1,10}")
NO_ERROR: Final = frozenset({"", "None", "0"})
"""What `SystemExit` says of a program that is done."""

PICTURES: Final = 8
PICTURE_LENGTH: Final = 5 * 1024 * 1024
"""Characters of one in base64: models take no larger ones."""
PICTURE_TYPES: Final = ("image/png", "image/jpeg")


class CellOutput:
    """Takes messages, gives the answer."""

    def __init__(self) -> None:
        self._out = Kept()
        self._err = Kept()
        self._wrote_err = False
        self._pictures: list[dict[str, Any]] = []
        self._failed = False
        self._exit: str | None = None

    def take(self, kind: str, content: Mapping[str, Any]) -> None:
        """One message of this cell's, by its type; those that say nothing to a reader are passed over."""
        match kind, content:
            case "stream", {"name": "stderr", "text": str(text)}:
                self._wrote_err = True
                self._err.feed(_encoded(text))
            case "stream", {"text": str(text)}:
                self._out.feed(_encoded(text))
            case "execute_result", {"data": dict(data), "execution_count": count}:
                self._show(data, f"Out[{count}]: ")
            case "display_data", {"data": dict(data)}:
                self._show(data, "")
            case "error", {"ename": "SystemExit", "evalue": str(why)}:
                self._failed = self._failed or why not in NO_ERROR
                self._exit = _exited(why)
            case "error", {"traceback": list(lines)}:
                self._failed = True
                self._out.feed(_encoded(COLOURS.sub("", "\n".join(map(str, lines))) + "\n"))
            case "execute_reply", {"status": status}:
                self._failed = self._failed or (status != "ok" and self._exit is None)
                for payload in content.get("payload") or ():
                    if payload.get("source") == "page":  # what `name?` asks for
                        self._out.feed(
                            _encoded(COLOURS.sub("", payload["data"].get("text/plain", "")) + "\n")
                        )

    def _show(self, data: Mapping[str, Any], label: str) -> None:
        for media_type in PICTURE_TYPES:
            encoded = data.get(media_type)
            if not isinstance(encoded, str) or len(self._pictures) >= PICTURES:
                continue
            if len(encoded) > PICTURE_LENGTH:
                self._out.feed(
                    _encoded("[a picture is left out: it is too large; save it to a file instead]\n")
                )
            else:
                try:
                    self._pictures.append(image_part(base64.b64decode(encoded), media_type))
                except binascii.Error:
                    continue
                return
        text = data.get("text/plain")
        if isinstance(text, str):
            self._out.feed(_encoded(f"{label}{text}\n"))

    def answer(self, stopped: str = "") -> Answer:
        """All of it. `stopped`: why the cell did not come to its end."""
        parts = [text_part(self._out.text(), "stdout")]
        errors = [self._err.text()] if self._wrote_err else []
        errors += [why for why in (self._exit, stopped) if why]
        if errors:
            parts.append(text_part("\n".join(errors), "stderr"))
        return answered([*parts, *self._pictures], is_error=self._failed or bool(stopped))


def _exited(why: str) -> str:
    """What is told of a cell that raised `SystemExit`, which says this."""
    said = "" if why in NO_ERROR or EXIT_CODE.fullmatch(why) else f"{why[:OUTPUT_BYTES]}\n"
    code = "0" if why in NO_ERROR else "1" if said else why
    return f"{said}[the cell ended itself, with exit code {code}; Python goes on: variables are kept]"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
