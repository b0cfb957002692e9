"""What a box is told when it may not go where it wanted to."""

from __future__ import annotations

from http import HTTPStatus


class Refusal(Exception):
    """The filter does not do what was asked. `reason` is for the box, `detail` only for the operator's log: addresses
    that inner names have are not for pages to know."""

    def __init__(self, status: HTTPStatus, reason: str, *, detail: str = "") -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.detail = detail

    @property
    def for_log(self) -> str:
        """One line."""
        return f"{self.reason} ({self.detail})" if self.detail else self.reason

    def encode(self) -> bytes:
        """The answer's bytes."""
        body = f"Greenroom's egress filter: {self.reason}.\n".encode()
        head = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Cache-Control: no-store\r\n"
            "X-Greenroom-Egress: refused\r\n"  # the box's tools tell it from an error of the site
            "Connection: close\r\n\r\n"
        )
        return head.encode() + body


def malformed(what: str) -> Refusal:
    """The request is not one that a proxy takes."""
    return Refusal(HTTPStatus.BAD_REQUEST, f"this is no request for a proxy: {what}")


def forbidden(reason: str, *, detail: str = "") -> Refusal:
    """The rules say no."""
    return Refusal(HTTPStatus.FORBIDDEN, reason, detail=detail)
