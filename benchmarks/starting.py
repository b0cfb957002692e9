"""The rows about what it takes to have it: imports, an installation, the start of the command."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.rows import Row, at_most, skipped, spread
from benchmarks.servers import ROOT

BASIS = "import aiohttp, anyio, msgspec"
READY_SECONDS = 15.0
APPLICATION = """
from greenroom import AgentApp

app = AgentApp("benchmark")


@app.query()
async def answer(msgs):
    yield "Hello"
"""


# -- imports -----------------------------------------------------------------------------------------------------


def import_rows(rounds: int) -> list[Row]:
    """`import greenroom` against what it stands on, each in new processes that take turns."""
    with _bytecode() as environment:
        statements = ["import greenroom", "from greenroom import AgentApp", BASIS]
        seconds: dict[str, list[float]] = {statement: [] for statement in statements}
        for number in range(rounds + 1):
            for statement, times in seconds.items():
                took = _import_seconds(statement, environment)
                if number:  # the first compiles
                    times.append(took)
    light, front, basis = (seconds[statement] for statement in statements)
    against = f"against {spread([s * 1000 for s in basis], ' ms')}"
    return [
        at_most("`import greenroom`", 1.1, median(light) / median(basis), f"{_ms(light)} {against}"),
        Row("`from greenroom import AgentApp`", "", f"{median(front) / median(basis):.2f}", None, _ms(front)),
    ]


def _ms(seconds: list[float]) -> str:
    return spread([s * 1000 for s in seconds], " ms")


@contextmanager
def _bytecode() -> Iterator[dict[str, str]]:
    """An environment in which modules are compiled once, wherever they are, and nothing is left behind."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        yield environment | {"PYTHONPYCACHEPREFIX": cache}


def _import_seconds(statement: str, environment: dict[str, str]) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        check=True,
        cwd=tempfile.gettempdir(),
    )
    return float(run.stdout)


# -- the command's start -------------------------------------------------------------------------------------------


def start_row(rounds: int) -> Row:
    """`greenroom serve app.py` until `/ready` says yes."""
    what, goal = "`greenroom serve` to `/ready`", 0.6
    if not (ROOT / "greenroom" / "cli.py").exists():
        return skipped(what, f"≤ {goal} s", "there is no command line yet")
    with _bytecode() as environment, tempfile.TemporaryDirectory() as folder:
        Path(folder, "app.py").write_text(APPLICATION, encoding="utf-8")
        times = [_start_seconds(folder, environment) for _ in range(rounds + 1)][1:]
    return at_most(what, goal, median(times), spread(times, " s"), " s")


def _start_seconds(folder: str, environment: dict[str, str]) -> float:
    port = _free_port()
    command = [sys.executable, "-m", "greenroom.cli", "serve", "app.py", "--port", str(port)]
    start = time.perf_counter()
    with subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE) as process:
        try:
            while not _ready(port):
                if process.poll() is not None or time.perf_counter() - start > READY_SECONDS:
                    process.kill()
                    said = process.stderr.read().decode() if process.stderr else ""
                    raise SystemExit(f"`greenroom serve` did not become ready: {said}")
                time.sleep(0.002)
            return time.perf_counter() - start
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


# -- an installation -----------------------------------------------------------------------------------------------


def installed_rows() -> list[Row]:
    """The wheel, built from here and installed alone. Needs a package index; takes half a minute."""
    whats = (("core installed: size", "≤ 30 MB"), ("core installed: distributions", "≤ 20"))
    with tempfile.TemporaryDirectory() as folder:
        try:
            packages = _install(Path(folder))
        except subprocess.CalledProcessError as error:
            why = f"`{' '.join(map(str, error.cmd[:4]))} …` failed: {error.stderr.decode().strip().splitlines()[-1:]}"
            return [skipped(*what, why) for what in whats]
        size = sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())
        count = len(list(packages.glob("*.dist-info")))
    return [
        at_most(whats[0][0], 30, size / 1e6, "site-packages of a new environment, without bytecode", " MB"),
        Row(whats[1][0], whats[1][1], str(count), count <= 20, "greenroom included"),
    ]


def _install(folder: Path) -> Path:
    """Build the wheel from a copy of the sources, so that nothing is left in the checkout, and install it."""
    packages = folder / "packages"
    source = folder / "source"
    left_out = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    installer = _installer(folder)
    _quietly([*installer, "--target", str(packages), str(source)])
    return packages


def _installer(folder: Path) -> list[str]:
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--quiet", "--python", sys.executable]
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
    return [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-compile"]


def _quietly(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True)
