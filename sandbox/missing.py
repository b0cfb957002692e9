"""The sandbox's names, until the sandbox is here.

An application may import them and go as far as it does without one; making one says what is missing and what to do.
"""

from __future__ import annotations

from typing import Any, NoReturn

from greenroom.actors.errors import MissingDependency


def refuse(name: str) -> NoReturn:
    """Raise `MissingDependency`: `name` cannot be had yet."""
    raise MissingDependency(
        f"{name} comes with the sandbox, which this version of Greenroom does not have yet; "
        "leave out the tools that need it (all else of the application runs), or wait for the version that has it"
    )


class MissingSandbox:
    """What is not here yet. Making one raises `MissingDependency`."""

    def __init__(self, *_args: Any, **_options: Any) -> None:
        refuse(type(self).__name__)


class BaseSandbox(MissingSandbox):
    """A container that runs Python and shell commands."""


class BaseSandboxAsync(MissingSandbox):
    """The same for asynchronous code."""


class BrowserSandbox(MissingSandbox):
    """A container with a browser."""


class BrowserSandboxAsync(MissingSandbox):
    """The same for asynchronous code."""


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


class SandboxService(MissingSandbox):
    """Gives each session its sandboxes."""


class SandboxServiceFactory(MissingSandbox):
    """Makes a `SandboxService` by name."""

    @classmethod
    async def create(cls, *_args: Any, **_options: Any) -> SandboxService:
        """Raises `MissingDependency`."""
        refuse(cls.__name__)
