"""Kinds of sandboxes that AgentScope Runtime has and Greenroom has not.

An application may import them and go as far as it does without one; making one says what is missing and what to do.
"""

from __future__ import annotations

from typing import Any

from greenroom.actors.errors import MissingDependency


class MissingSandbox:
    """A kind that is not here. Making one raises `MissingDependency`."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        raise MissingDependency(
            f"{type(self).__name__}: Greenroom has browser sandboxes and base sandboxes (Python and a shell), both "
            "with files (`box.fs`); use BrowserSandbox or BaseSandbox, or leave out the tools that need it"
        )


class FilesystemSandbox(MissingSandbox):
    """A container with files."""


class FilesystemSandboxAsync(MissingSandbox):
    """The same for asynchronous code."""


class GuiSandbox(MissingSandbox):
    """A container with a desktop."""


class GuiSandboxAsync(MissingSandbox):
    """The same for asynchronous code."""


class MobileSandbox(MissingSandbox):
    """A container with an Android device."""


class MobileSandboxAsync(MissingSandbox):
    """The same for asynchronous code."""
