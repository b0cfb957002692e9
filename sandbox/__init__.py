"""Sandboxes for the tools of agents. They come in a later version: making one says so."""

from greenroom.sandbox.missing import (
    BaseSandbox,
    BaseSandboxAsync,
    BrowserSandbox,
    BrowserSandboxAsync,
    FilesystemSandbox,
    FilesystemSandboxAsync,
    GuiSandbox,
    GuiSandboxAsync,
    MobileSandbox,
    MobileSandboxAsync,
    SandboxService,
    SandboxServiceFactory,
)

__all__ = [
    "BaseSandbox",
    "BaseSandboxAsync",
    "BrowserSandbox",
    "BrowserSandboxAsync",
    "FilesystemSandbox",
    "FilesystemSandboxAsync",
    "GuiSandbox",
    "GuiSandboxAsync",
    "MobileSandbox",
    "MobileSandboxAsync",
    "SandboxService",
    "SandboxServiceFactory",
]
