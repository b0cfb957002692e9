"""`make bench`: measures, prints the table, and with --write keeps it in benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

from benchmarks import own_process
from benchmarks.rows import Row, at_most, table
from benchmarks.sandboxes import sandbox_rows
from benchmarks.servers import CLIENT_CORE, ROOT
from benchmarks.starting import import_rows, installed_rows, start_row
from benchmarks.stores import store_rows
from benchmarks.streams import FULL, QUICK, responses_rows, serving_rows
from greenroom.open_files import raise_open_files

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PARTS = ("serving", "responses", "sessions", "stores", "imports", "start", "sandbox", "installed")
QUICK_PARTS = PARTS[:6]


def main() -> None:
    options = _options()
    say = _teller()
    raise_open_files()
    if options.realtime:
        own_process.go_first()
    load = os.getloadavg()[0]
    rows: list[Row] = []
    for part in options.only or (QUICK_PARTS if options.quick else PARTS):
        rows += _measure(part, options.quick, say)
    text = f"{_heading(load, options.realtime)}\n\n{table(rows)}"
    print(f"\n{text}")
    if options.write:
        RESULTS.write_text(f"# Results of `make bench`\n\n{text}", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough look in under a minute")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {RESULTS.relative_to(ROOT)}")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="go before all other programs, which else make the client slow and writes cheap (Linux, as root)",
    )
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="measure this alone (may be given again)"
    )
    return parser.parse_args()


def _measure(part: str, quick: bool, say: Callable[[str], None]) -> list[Row]:
    say(part)
    if part == "sessions":
        return [_idle_session(15_000 if quick else 100_000)]
    if part == "stores":
        return store_rows(1 if quick else 5, say)
    if part == "imports":
        return import_rows(2 if quick else 11)
    if part == "start":
        return [start_row(2 if quick else 5)]
    if part == "sandbox":
        own_process.go_as_others()  # a control group takes no realtime process
        return sandbox_rows(3 if quick else 7, say)
    if part == "installed":
        return installed_rows()
    own_process.pin(CLIENT_CORE)
    try:
        measure = responses_rows if part == "responses" else serving_rows
        return measure(QUICK if quick else FULL, say)
    finally:
        _unpin()


def _idle_session(count: int) -> Row:
    command = [sys.executable, "-m", "benchmarks.sessions", str(count)]
    run = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    details = (
        f"{count} sessions of one turn (two messages), growth of resident memory; none keeps an agent warm"
    )
    return at_most("memory of an idle session", 1, float(run.stdout) / 1000, details, " KB")


def _unpin() -> None:
    if sys.platform == "linux":
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _teller() -> Callable[[str], None]:
    start = time.perf_counter()

    def say(what: str) -> None:
        print(f"{time.perf_counter() - start:6.1f} s  {what}", file=sys.stderr, flush=True)

    return say


def _heading(load: float, realtime: bool) -> str:
    alone = ", which realtime priority kept out of the way" if realtime else ""
    today = dt.datetime.now(dt.UTC).date()
    return (
        f"{today}, Python {platform.python_version()}, aiohttp {version('aiohttp')}, {os.cpu_count()} cores "
        f"({platform.machine()}, {platform.system()}), load average at the start {load:.1f}{alone}. "
        "Ratios are to a bare "
        "aiohttp handler that writes the same bytes, one write an event; the two took turns in one run."
    )


if __name__ == "__main__":
    main()
