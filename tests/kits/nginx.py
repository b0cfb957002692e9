"""nginx with the project's own example of a configuration, in front of a server of a test."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kits.needs import needed_program
from kits.until import until_answered

EXAMPLE = Path(__file__).parents[2] / "examples" / "nginx.conf"
AROUND = """
daemon off; pid {folder}/pid; error_log stderr warn; {user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


def replaced(text: str, was: str, now: str) -> str:
    """The text with something else in its place, which is there once."""
    assert text.count(was) == 1, was
    return text.replace(was, now)


@asynccontextmanager
async def nginx(folder: Path, *server_ports: int, **changes: str) -> AsyncIterator[str]:
    """Where it listens, in front of servers on these ports. `changes`: directives of the example that have another
    value here."""
    program = needed_program("nginx", "nginx")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    site = replaced(EXAMPLE.read_text(), "listen 80;", f"listen 127.0.0.1:{port};")
    listed = next(line.strip() for line in site.splitlines() if line.strip().startswith("server 127.0.0.1:"))
    servers = " ".join(listed.replace(":8090", f":{each}") for each in server_ports)
    site = replaced(site, listed, servers)
    for name, value in changes.items():
        was = next(line.strip() for line in site.splitlines() if line.strip().startswith(f"{name} "))
        site = replaced(site, was, f"{name} {value};")
    (folder / "site.conf").write_text(site)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, user=user))
    process = await asyncio.create_subprocess_exec(
        program, "-p", str(folder), "-c", str(folder / "nginx.conf"), stderr=asyncio.subprocess.PIPE
    )
    try:
        await until_answered(lambda: _listens(port, process))
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        _, said = await process.communicate()
    assert b"[emerg]" not in said, said.decode()


async def _listens(port: int, process: asyncio.subprocess.Process) -> bool:
    if process.returncode is not None:
        assert process.stderr is not None
        raise AssertionError((await process.stderr.read()).decode())
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
