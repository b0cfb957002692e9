"""The form of a whole Chat Completions stream, as a checker: what chat clients rely on, and OpenAI's own types."""

from __future__ import annotations

from typing import Any

import msgspec
from openai.types.chat import ChatCompletion, ChatCompletionChunk

REASONS = {"stop", "length", "tool_calls", "content_filter"}


class Said:
    """What a stream's chunks add up to."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.calls: list[dict[str, str]] = []
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None

    def text(self, name: str = "content") -> str:
        return self.texts.get(name, "")

    def hear(self, delta: dict[str, Any]) -> None:
        assert delta.keys() <= {"role", "content", "reasoning_content", "refusal", "tool_calls"}
        for name in ("content", "reasoning_content", "refusal"):
            if delta.get(name) is not None:
                self.texts[name] = self.text(name) + delta[name]
        for call in delta.get("tool_calls", ()):
            self._hear_call(call)

    def _hear_call(self, call: dict[str, Any]) -> None:
        if "id" in call:
            assert call["index"] == len(self.calls)
            assert call["type"] == "function"
            self.calls.append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
        else:
            assert "name" not in call["function"]
        self.calls[call["index"]]["arguments"] += call["function"]["arguments"]


def frames_data(frames: list[bytes]) -> list[str]:
    """Each frame's data, which is one line in one frame."""
    assert all(frame.startswith(b"data: ") and frame.endswith(b"\n\n") for frame in frames)
    assert all(b"\n" not in frame[:-2] and b"\r" not in frame for frame in frames)
    return [frame[len(b"data: ") : -2].decode() for frame in frames]


def check_stream(data: list[str], *, counted: bool = False) -> Said:
    """Check all of a stream and give what it said. `counted`: it was asked to include usage. Raises AssertionError."""
    *lines, done = data
    assert done == "[DONE]"
    said = Said()
    chunks = [msgspec.json.decode(line) for line in lines]
    if "error" in chunks[-1]:
        said.error = chunks.pop()["error"]
        assert said.error is not None
        assert said.error.keys() == {"message", "type", "param", "code"}
    elif counted:
        last = chunks.pop()
        ChatCompletionChunk.model_validate(last, strict=True)
        assert last["choices"] == []
        said.usage = last["usage"]
        assert said.usage is not None
    _check_chunks(chunks, said, counted)
    return said


def _check_chunks(chunks: list[dict[str, Any]], said: Said, counted: bool) -> None:
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
        assert ("usage" in chunk) == counted
        assert chunk.get("usage") is None
        [choice] = chunk["choices"]
        assert choice["index"] == 0
        said.hear(choice["delta"])
    *others, last = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert others == [None] * len(others)
    said.finish_reason = last
    assert (last in REASONS) == (said.error is None)


def check_completion(line: bytes | str) -> dict[str, Any]:
    """Check a completion that came as one object and give it."""
    ChatCompletion.model_validate_json(line, strict=True)
    completion: dict[str, Any] = msgspec.json.decode(line)
    [choice] = completion["choices"]
    assert choice["finish_reason"] in REASONS
    assert {"content", "refusal", "role"} <= choice["message"].keys()
    assert completion["usage"]["total_tokens"] >= 0
    return completion
