"""Sandboxes for the tools of agents: a browser, Python and a shell in a box that may do no harm."""

from greenroom.sandbox.base_sandbox import BaseSandbox
from greenroom.sandbox.browser_sandbox import BrowserSandbox
from greenroom.sandbox.missing import (
    FilesystemSandbox,
    FilesystemSandboxAsync,
    GuiSandbox,
    GuiSandboxAsync,
    MobileSandbox,
    MobileSandboxAsync,
)
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import EgressRules, SandboxSettings

BaseSandboxAsync = BaseSandbox
BrowserSandboxAsync = BrowserSandbox

__all__ = [
    "BaseSandbox",
    "BaseSandboxAsync",
    "BrowserSandbox",
    "BrowserSandboxAsync",
    "EgressRules",
    "FilesystemSandbox",
    "FilesystemSandboxAsync",
    "GuiSandbox",
    "GuiSandboxAsync",
    "MobileSandbox",
    "MobileSandboxAsync",
    "SandboxSettings",
    "ToolResult",
]
