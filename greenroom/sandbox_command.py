"""`greenroom sandbox`: the image that browsers run in, what sandboxes there are, and what stands in their way."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click
from anyio import to_thread
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table

from greenroom.actors.errors import GreenroomError
from greenroom.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    from greenroom.sandbox.building.build import BuildStep, BuiltImage
    from greenroom.sandbox.inventory import Item
    from greenroom.sandbox.leases import SharedLeases

T = TypeVar("T")

PARTS = {"packages": "fetching Python packages", "base": "getting Debian", "image": "building the image"}
BAR_WIDTH = 10


_state = click.option(
    "--state",
    metavar="URL",
    envvar="GREENROOM_SESSIONS",
    show_envvar=True,
    help="Where the sessions of applications are kept, as of `greenroom serve`: processes that share it keep their "
    "sandboxes' leases there too.",
)


@click.group()
def sandbox() -> None:
    """Browsers for agents: the image they run in, and those that run.

    The settings are those of the environment: GREENROOM_SANDBOX and DOCKER_HOST, say.
    """


@sandbox.command()
@click.option("--again", is_flag=True, help="Build it anew, with Debian's newest browser and packages.")
def build(again: bool) -> None:
    """Build the image of sandboxes, and print its name.

    It begins with Debian from the registry of images, or, where none is reachable, with one that mmdebstrap makes of
    Debian's own packages. Python packages come by pip or uv and with their settings.
    """
    with _progress() as tell:
        built = _run(_build(again, tell))
    how = "built" if built.fresh else "it was there already"
    click.echo(f"{built.name} ({built.size // 1_000_000} MB, {how})")


@sandbox.command()
def doctor() -> None:
    """Look whether sandboxes can be made here, and say what to do where not.

    It makes a sandbox of the kind that GREENROOM_SANDBOX names, or of each, and removes it. Fails when an application
    could not have any.
    """
    if not _run(_examine()):
        sys.exit(1)


@sandbox.command()
@_state
def ps(state: str | None) -> None:
    """Show the sandboxes of all processes of this user."""
    found = _run(_items(state))
    if not found:
        click.echo("there are no sandboxes", err=True)
        return
    table = Table(
        "LEASE", "SESSION", "USER", "KIND", "BACKEND", "BOX", "OWNER", "AGE", box=None, pad_edge=False
    )
    now = time.time()
    for item in found:
        table.add_row(*_row(item, now))
    Console().print(table)


@sandbox.command()
@click.argument("leases", metavar="[LEASE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Remove all of this user's, those in use too.")
@_state
def stop(leases: tuple[str, ...], everything: bool, state: str | None) -> None:
    """Remove sandboxes: those named by the beginnings of their leases' ids, and, when none is named, those that dead
    processes left.

    A process whose sandbox is removed tells its agent that it was lost, and makes another when it is asked to. What an
    unknown owner has (another user's or machine's, on a shared engine) is removed only by its name. So is, without
    --all, what a living process may go on with.
    """
    if not _run(_stop(leases, everything, state)):
        sys.exit(1)


# ------------------------------------------------------------------------------------------------------------- the work


async def _build(again: bool, tell: Callable[[BuildStep], None]) -> BuiltImage:
    from greenroom.sandbox.building.build import build_image
    from greenroom.sandbox.docker.engine import Engine, engine_url

    settings = SandboxSettings.from_environ()
    engine = Engine(await engine_url(settings.docker_host))
    try:
        return await build_image(engine, name=settings.image, again=again, on_step=tell)
    finally:
        await engine.close()


async def _examine() -> bool:
    from greenroom.sandbox.doctor import examine

    ok = False
    async for finding in examine(SandboxSettings.from_environ()):
        mark = click.style("ok", fg="green") if finding.ok else click.style("no", fg="red")
        click.echo(f"{mark}  {finding.subject}: {finding.text}")
        ok = finding.ok
    return ok


async def _items(state: str | None) -> Sequence[Item]:
    from greenroom.sandbox.inventory import open_inventory

    async with open_inventory(SandboxSettings.from_environ(), await _shared(state)) as inventory:
        return await inventory.items()


async def _stop(leases: Sequence[str], everything: bool, state: str | None) -> bool:
    """Whether all that were chosen are gone; of each it is told as it goes."""
    from greenroom.sandbox.inventory import open_inventory

    all_gone = True
    async with open_inventory(SandboxSettings.from_environ(), await _shared(state)) as inventory:
        items = await inventory.items()
        for item in _chosen(items, leases, everything):
            try:
                await inventory.remove(item)
            except (GreenroomError, OSError) as error:
                all_gone = False
                why = error.message if isinstance(error, GreenroomError) else str(error)
                click.echo(f"not removed: {item.lease[:8]} ({item.backend}): {why}", err=True)
            else:
                click.echo(f"removed {item.lease[:8]} ({item.backend})")
        if not leases and not everything:
            _tell_of_the_rest(items)
    return all_gone


async def _shared(state: str | None) -> SharedLeases | None:
    """The leases beside the sessions at that URL."""
    if not state or state == "memory":
        return None
    from greenroom.services.durable_leases import DurableLeases
    from greenroom.services.sqlite.storage import SqliteStorage
    from greenroom.services.store_urls import storage_at

    storage = await to_thread.run_sync(storage_at, state)
    if isinstance(storage, SqliteStorage) and not await to_thread.run_sync(storage.path.exists):
        click.echo(f"there is no file {storage.path}, so no leases are read there", err=True)
        return None
    return DurableLeases(storage)


def _chosen(items: Sequence[Item], leases: Sequence[str], everything: bool) -> Sequence[Item]:
    if everything:
        return [item for item in items if item.hold != "unknown"]
    if not leases:
        return [item for item in items if item.hold == "dead"]
    chosen = []
    for beginning in leases:
        fitting = [item for item in items if item.lease.startswith(beginning)]
        if len(fitting) != 1:
            number = "no sandbox has" if not fitting else f"{len(fitting)} sandboxes have"
            raise click.ClickException(
                f"{number} a lease that begins with {beginning!r}: see `greenroom sandbox ps`"
            )
        chosen += fitting
    return chosen


def _tell_of_the_rest(items: Sequence[Item]) -> None:
    """What dead processes left and is not removed unasked."""
    for item in items:
        if item.hold == "waiting":
            why = "a living process may go on with it, or removes it soon"
        elif item.hold == "shared":
            why = "its lease is where processes share them: name that with --state"
        else:
            continue
        click.echo(f"left alone: {item.lease[:8]} ({item.backend}): {why}", err=True)


def _row(item: Item, now: float) -> Sequence[str]:
    key = item.key
    box = {None: "none", True: "running", False: "ended"}[item.running]
    return (
        item.lease[:8],
        "-" if key is None else key.session_id,
        "-" if key is None else key.user_id,
        "-" if key is None else key.kind,
        item.backend,
        f"{box}, without a lease" if item.state is None else box,
        {"waiting": "dead, waits", "shared": "dead, see --state"}.get(item.hold, item.hold),
        "-" if item.created is None else f"{now - item.created:.0f} s",
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except GreenroomError as error:
        raise click.ClickException(error.message) from error


@contextmanager
def _progress() -> Iterator[Callable[[BuildStep], None]]:
    """What is done, on standard error, so that the image's name is alone on standard output. Without a terminal only
    the parts are told, a line each."""
    console = Console(stderr=True)
    if not console.is_terminal:
        told = set[str]()

        def tell(step: BuildStep) -> None:
            if step.part not in told:
                told.add(step.part)
                click.echo(f"- {PARTS[step.part]}", err=True)

        yield tell
        return
    with Progress(*_columns(), console=console, transient=True, expand=True) as progress:
        tasks: dict[str, TaskID] = {}

        def show(step: BuildStep) -> None:
            if step.part not in tasks:
                for task in tasks.values():
                    progress.update(task, total=1, completed=1, line="")
                tasks[step.part] = progress.add_task(PARTS[step.part], total=None, line="")
            total = None if step.done is None else 1
            progress.update(tasks[step.part], total=total, completed=step.done, line=step.line)

        yield show


def _columns() -> Sequence[ProgressColumn]:
    """A part's name, how far it is, and its newest line, which is cut to the room that is left."""
    name, rest = Column(no_wrap=True, min_width=max(map(len, PARTS.values()))), Column(no_wrap=True, ratio=1)
    return (
        SpinnerColumn(),
        TextColumn("{task.description}", table_column=name),
        BarColumn(BAR_WIDTH),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[line]}", markup=False, table_column=rest
        ),  # what builds say may have brackets
    )
