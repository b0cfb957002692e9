"""Pictures that tools of AgentScope 1.x return, on their way into prompts.

For most services AgentScope's formatters write such a picture to a temporary file, at each model call anew, and nothing
removes the files. The model is told the file's name; it is shown the picture only by a formatter that passes pictures
on (`promote_tool_result_images`). Inside a turn

- a formatter that passes none on says that there was one, in place of a file's name that no model can use;
- for one that does, each picture is written once a turn, off the loop, and removed when the turn is over.

Outside of turns AgentScope does as ever.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from agentscope.formatter import FormatterBase
from agentscope.message import Msg

from greenroom.actors.errors import TurnOver
from greenroom.actors.frameworks.agentscope1_blocks import MEDIA, Block
from greenroom.actors.offload import in_thread
from greenroom.actors.scope import current_turn
from greenroom.services.work import Work, current_work

METHOD = "convert_tool_result_to_string"

_folders: dict[Work, _Folder] = {}
"""Where turns that run have their pictures."""


def install() -> None:
    """Wrap the formatters' method. Doing it twice is fine."""
    original = vars(FormatterBase).get(METHOD)
    if isinstance(original, staticmethod):
        setattr(FormatterBase, METHOD, _InWords(original.__func__))


def passes_on(formatter: object) -> bool:
    """Whether a formatter shows models the pictures of tools."""
    return getattr(formatter, "promote_tool_result_images", False) is True


class _InWords:
    """The static method, which knows here which formatter it is called on."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self._convert = convert

    def __get__(self, formatter: object, owner: type | None = None) -> Callable[[Any], Any]:
        if formatter is None or current_turn.get() is None or passes_on(formatter):
            return self._convert
        return self._without_files

    def _without_files(self, output: Any) -> Any:
        return self._convert([_in_words(block) for block in output] if isinstance(output, list) else output)


def _in_words(block: Any) -> Any:
    """The block; data of a picture, sound or film becomes a text that says so."""
    if not _is_data(block):
        return block
    source = block["source"]
    size = len(source.get("data") or "") * 3 // 4000
    kind = source.get("media_type") or block["type"]
    return {"type": "text", "text": f"[{kind}, {size} kB; it was made, but cannot be shown to you]"}


def _is_data(block: Any) -> bool:
    source = block.get("source") if isinstance(block, dict) and block.get("type") in MEDIA else None
    return isinstance(source, dict) and source.get("type") == "base64"


# -- files -------------------------------------------------------------------------------------------------------------


async def in_files(msgs: Any) -> Any:
    """The messages, with the data in tools' results in files of the turn. What is no list of them stays as it is."""
    work = current_work.get()
    if work is None or not isinstance(msgs, list) or not any(map(_has_data, msgs)):
        return msgs
    folder = _folders.get(work)
    if folder is None:
        folder = _folders[work] = _Folder()
        work.when_over(partial(_remove, work, asyncio.get_running_loop()))
    return await in_thread(_with_files, msgs, folder)


def _has_data(msg: object) -> bool:
    return any(_is_data(block) for result in _results(msg) for block in result["output"])


def _results(msg: Any) -> Iterator[Block]:
    """The tools' results of several blocks in a message."""
    content = msg.content if isinstance(msg, Msg) else None
    if isinstance(content, list):
        for block in content:
            if block.get("type") == "tool_result" and isinstance(block.get("output"), list):
                yield block


def _remove(work: Work, loop: asyncio.AbstractEventLoop) -> None:
    _ = loop.run_in_executor(None, _folders.pop(work).remove)


class _Folder:
    """One turn's pictures on disk. For threads: one of a cancelled turn may come late."""

    def __init__(self) -> None:
        self._one_at_a_time = threading.Lock()
        self._path: Path | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<_Folder {self._path}>"

    def put(self, data: str, media_type: str) -> str:
        """The path of a file with this content, written if it is not there."""
        kind = "".join(filter(str.isalnum, media_type.rpartition("/")[2])) or "bin"
        with self._one_at_a_time:
            if self._over:
                raise TurnOver("the turn has ended, and the pictures of its tools are removed")
            if self._path is None:
                self._path = Path(tempfile.mkdtemp(prefix="greenroom-pictures-"))
            path = self._path / f"{hashlib.sha256(data.encode()).hexdigest()[:32]}.{kind}"
            if not path.exists():
                path.write_bytes(base64.b64decode(data))
        return str(path)

    def remove(self) -> None:
        """Remove all of them; nothing more is written."""
        with self._one_at_a_time:
            self._over = True
            if self._path is not None:
                shutil.rmtree(self._path, ignore_errors=True)


def _with_files(msgs: list[Any], folder: _Folder) -> list[Any]:
    return [_msg_with_files(msg, folder) if _has_data(msg) else msg for msg in msgs]


def _msg_with_files(msg: Msg, folder: _Folder) -> Msg:
    results = {
        id(block): {**block, "output": [_in_file(part, folder) for part in block["output"]]}
        for block in _results(msg)
    }
    other = copy(msg)
    other.content = [results.get(id(block), block) for block in msg.content]
    return other


def _in_file(block: Any, folder: _Folder) -> Any:
    if not _is_data(block):
        return block
    source = block["source"]
    path = folder.put(source.get("data") or "", source.get("media_type") or "")
    return {**block, "source": {"type": "url", "url": path}}
