"""The tool server's life: what must be quick first."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import logging
import signal
import socket
from typing import Final

from greenroom.sandbox.image.box import Box
from greenroom.sandbox.image.options import BoxOptions

PR_SET_DUMPABLE: Final = 4
PR_SET_CHILD_SUBREAPER: Final = 36


async def serve(options: BoxOptions, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT. Turns garbage collection on: it finds nothing in what is imported, slowly."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    _become_a_server()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    box = await Box.opened(options)
    try:
        await asyncio.sleep(0)  # the browser's driver is being started, in a process of its own
        server = await asyncio.to_thread(importlib.import_module, "greenroom.sandbox.image.server")
        async with server.served(box, listening):
            gc.freeze()
            gc.enable()
            await stopped.wait()
    finally:
        await box.stop()


def _become_a_server() -> None:
    """What runs in the box is of the same user: keep it from looking into this process, where the token is. And be the
    parent of processes whose own has gone, so that they can be found whatever they did to hide."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
