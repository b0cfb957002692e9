"""Opening addresses, and saying why one does not open."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from playwright.async_api import Error
from playwright.async_api import TimeoutError as PageTimeout

from greenroom.sandbox.image.addresses import address_of
from greenroom.sandbox.image.answers import Said, ToolError, one_line

if TYPE_CHECKING:
    from playwright.async_api import Page, Response

    from greenroom.sandbox.image.pages import Pages

NAVIGATION_SECONDS: Final = 45.0
ERROR_PAGE_SECONDS: Final = 0.5
_TRIES: Final = 5

_REASONS: Final = (
    ("ERR_NAME_NOT_RESOLVED", "there is no host of this name. Check the address."),
    ("ERR_CONNECTION_REFUSED", "nothing answers there (the connection was refused). Check host and port."),
    ("ERR_CONNECTION_TIMED_OUT", "the host does not answer."),
    ("ERR_CONNECTION_", "the host broke the connection off. Try once more, then another source."),
    ("ERR_EMPTY_RESPONSE", "the host closed the connection without an answer. Is it http, or https?"),
    ("ERR_ADDRESS_", "the host cannot be reached from here."),
    ("ERR_INTERNET_DISCONNECTED", "the sandbox has no network."),
    (
        "ERR_TUNNEL_CONNECTION_FAILED",
        (
            "the sandbox's egress filter did not let it through. It refuses private, local and metadata addresses and "
            "hosts that are not allowed; hosts that do not exist or do not answer look alike. Trying again is no use."
        ),
    ),
    ("ERR_PROXY_", "the sandbox's way out does not work. This is for whoever runs the sandbox to look at."),
    ("ERR_CERT_", "its certificate is not valid, so that it may be somebody else's; it was not opened."),
    ("ERR_SSL_", "no secure connection can be made with it. Is it http instead of https?"),
    ("ERR_TOO_MANY_REDIRECTS", "it redirects in a circle."),
    ("ERR_BLOCKED_BY_", "the browser does not open it."),
    ("ERR_INVALID_URL", "it is no valid address."),
    ("ERR_UNSAFE_PORT", "browsers do not open this port."),
    ("ERR_INVALID_AUTH_CREDENTIALS", "it wants a user name and password."),
    ("invalid URL", "it is no valid address. Give a whole one, like https://example.com/."),
)


async def navigate(pages: Pages, url: str) -> Said:
    """Open it in the current tab. Raises `ToolError` that says why it does not open."""
    address = address_of(url)
    begun = pages.downloads.begun
    try:
        response = await _goto(pages, address)
    except PageTimeout:
        raise ToolError(
            f"{one_line(address)} did not arrive within {NAVIGATION_SECONDS:.0f} s. Look with browser_snapshot at what "
            "there is of it."
        ) from None
    except Error as error:
        if pages.downloads.begun > begun or "Download is starting" in error.message:
            return Said(f"{one_line(address)} is a file to download, not a page. The page stays as it was.")
        why = _why(address, error)
        await _error_page(pages)
        raise ToolError(why) from error
    return Said(f"Opened {one_line(address)}.{_status(response)}")


async def _goto(pages: Pages, address: str) -> Response | None:
    page: Page = pages.current.page
    for _ in range(_TRIES - 1):
        try:
            return await page.goto(address, wait_until="domcontentloaded", timeout=NAVIGATION_SECONDS * 1000)
        except Error as error:
            # The page before was still leaving for somewhere itself, or this is its echo.
            if "interrupted by another navigation" not in error.message:
                raise
        await _landed(pages)
    return await page.goto(address, wait_until="domcontentloaded", timeout=NAVIGATION_SECONDS * 1000)


async def _landed(pages: Pages) -> None:
    """Wait for what was in the way: where it leads is of no interest, and it may have arrived already."""
    try:
        async with asyncio.timeout(ERROR_PAGE_SECONDS):
            await pages.bell.rung()
    except TimeoutError:
        return


async def _error_page(pages: Pages) -> None:
    """Wait for the browser's own page about what did not open, or it would get in the way of the next one."""
    try:
        async with asyncio.timeout(ERROR_PAGE_SECONDS):
            while not pages.current.page.url.startswith("chrome-error:"):
                await pages.bell.rung()
    except TimeoutError:
        return  # not every error has one


def _status(response: Response | None) -> str:
    if response is None or response.status < 400:
        return ""
    if "x-greenroom-egress" in response.headers:
        return " It did not open: the sandbox's egress filter answered in its place, and the page says why."
    return (
        f" The server answered {response.status} {response.status_text}".rstrip()
        + ": that is an error of the site."
    )


def _why(address: str, error: Error) -> str:
    if "net::" not in error.message and "invalid URL" not in error.message:
        raise error
    if "ERR_ABORTED" in error.message:
        return f"{one_line(address)} gave no page: the server had nothing to show, or another page was opened instead."
    for mark, reason in _REASONS:
        if mark in error.message:
            return f"{one_line(address)} did not open: {reason} ({_code(error.message)})"
    return f"{one_line(address)} did not open: {_code(error.message)}"


def _code(message: str) -> str:
    first = one_line(message.partition("\n")[0])
    _, net, code = first.partition("net::")
    return code.split(" ")[0] if net else first
