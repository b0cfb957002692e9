"""Which addresses tools open."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.sandbox.image.addresses import SCHEMES, address_of
from greenroom.sandbox.image.answers import ToolError


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://example.com/a?b#c", "https://example.com/a?b#c"),
        (" http://example.com ", "http://example.com"),
        ("HTTP://example.com", "HTTP://example.com"),
        ("example.com", "https://example.com"),
        ("example.com:8443/x", "https://example.com:8443/x"),
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000/x", "http://127.0.0.1:8000/x"),
        ("[::1]:80/", "http://[::1]:80/"),
        ("about:blank", "about:blank"),
        ("data:text/html,hello", "data:text/html,hello"),
        ("blob:https://example.com/1", "blob:https://example.com/1"),
    ],
)
def test_what_may_be_opened(url: str, address: str) -> None:
    assert address_of(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        " file:/etc/passwd",
        "fi\nle:///etc/passwd",
        "\x00file:///etc/passwd",
        "view-source:file:///etc/passwd",
        "view-source:http://example.com",
        "javascript:alert(1)",
        "java\tscript:alert(1)",
        "chrome://version",
        "chrome-extension://x/y",
        "devtools://devtools",
        "filesystem:http://example.com/x",
        "ftp://example.com",
        "ws://example.com",
    ],
)
def test_what_may_not(url: str) -> None:
    with pytest.raises(ToolError, match="may not be opened"):
        address_of(url)


@pytest.mark.parametrize("url", ["", "hello world", "/path", "//example.com", "?q"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ToolError, match="no web address"):
        address_of(url)


@given(st.text(max_size=60))
def test_only_known_schemes_come_out(url: str) -> None:
    try:
        address = address_of(url)
    except ToolError:
        return
    assert address.partition(":")[0].lower() in SCHEMES
