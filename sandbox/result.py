"""What a tool of a sandbox answers."""

from __future__ import annotations

from typing import Any


class ToolResult(dict[str, Any]):
    """The protocol's answer as it is, so that it can be indexed and sent on as JSON:
    `{"meta": None, "content": [{"type": "text", "text": ...}, {"type": "image", "data": ..., "mimeType": ...}],
    "isError": False}`. Texts of `run_shell_command` and `run_ipython_cell` have a `description`: `stdout`, `stderr`,
    `returncode`. Printing one prints its texts.
    """

    @classmethod
    def of_text(cls, text: str, *, is_error: bool = False) -> ToolResult:
        """A result that is one text."""
        return cls(meta=None, content=[{"type": "text", "text": text}], isError=is_error)

    @property
    def is_error(self) -> bool:
        """Whether the tool says that it failed."""
        return bool(self.get("isError"))

    @property
    def text(self) -> str:
        """All texts, a line break between two."""
        return "\n".join(part["text"] for part in self.get("content", ()) if part.get("type") == "text")

    def part(self, description: str) -> str:
        """The text with this `description` (`stdout`, `stderr`, `returncode`); empty when there is none."""
        for part in self.get("content", ()):
            if part.get("description") == description:
                text: str = part["text"]
                return text
        return ""

    @property
    def images(self) -> list[tuple[str, str]]:
        """The pictures: media type and base64 data of each."""
        return [
            (part["mimeType"], part["data"])
            for part in self.get("content", ())
            if part.get("type") == "image"
        ]

    def __str__(self) -> str:
        pictures = [f"[{media_type}, {len(data) * 3 // 4} bytes]" for media_type, data in self.images]
        return "\n".join([*([self.text] if self.text else []), *pictures])
