"""Waiting for the application of the official image, without its front server noticing.

That server finds the application at two addresses, both called localhost. Asked for something before the application
listens it finds both dead, and asks neither for the next ten seconds. So nobody asks it until then: whether the
application listens is looked at from inside.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Final

import anyio

from greenroom.sandbox.docker.engine import Engine, EngineError

logger = logging.getLogger(__name__)

APPLICATION_PORT: Final = 8000
LOOK_SECONDS: Final = 45.0
"""How long is looked: less than a box may take, and than an engine may take to answer."""

END_SECONDS: Final = 2.0
"""How long a container in which nothing could be seen is given to end: who looks there is killed a little earlier."""

LOOK: Final = f"""\
import socket, time
until = time.monotonic() + {LOOK_SECONDS}
while time.monotonic() < until:
    try:
        socket.create_connection(("127.0.0.1", {APPLICATION_PORT})).close()
        print("it listens")
        break
    except OSError:
        time.sleep(0.05)
"""
LOOKING: Final[Sequence[str]] = ("python3", "-c", LOOK)


async def wait_for_application(engine: Engine, container: str) -> None:
    """Return when the container's application listens, when the container has ended, or when neither can be seen: then
    it is found out by asking."""
    try:
        said = await engine.execute(container, LOOKING)
    except EngineError as error:  # it ends, or it is another image, without Python
        said = str(error)
    if "it listens" in said:
        return
    logger.info("whether the application in %s listens cannot be looked at: %s", container, said)
    with anyio.move_on_after(END_SECONDS), contextlib.suppress(EngineError):
        await engine.json("POST", f"containers/{container}/wait")
