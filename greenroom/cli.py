"""The command line: `greenroom serve`, `greenroom chat`, `greenroom model`, `greenroom sandbox`.

What a command needs is imported when it runs, so that the first one is quick to start. Failures that can be expected
are one message on standard error; exit code 2: the command line is wrong, 1: it failed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import IO, Any, NoReturn

import click

LATER = {"model": "greenroom.model_command:model", "sandbox": "greenroom.sandbox_command:sandbox"}
"""Commands that live elsewhere and are imported when they are used."""

LEVELS = ("debug", "info", "warning", "error", "critical")


class Failed(click.ClickException):
    """The command failed. Exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"greenroom: {self.message}", file=file or sys.stderr)


class Misused(Failed):
    """The command line is wrong. Exit code 2."""

    exit_code = 2


class LazyGroup(click.Group):
    """A group some of whose commands are imported only when they are used."""

    def __init__(self, *args: Any, later: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self._later = later

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._later})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._later:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._later[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


def _show_version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"greenroom {version('greenroom')}")
        ctx.exit()


@click.group(cls=LazyGroup, later=LATER, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def main() -> None:
    """Serve LLM agents: every conversation is a session actor."""


@main.command()
@click.argument("app", metavar="APP[:NAME]")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 is everywhere."
)
@click.option(
    "--port", default=8090, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(LEVELS, case_sensitive=False)
)
@click.option("--log-format", default="text", show_default=True, type=click.Choice(["text", "json"]))
@click.option(
    "--drain-seconds", type=click.FloatRange(min=0), help="How long turns may run on when it stops."
)
@click.option(
    "--state",
    metavar="URL",
    help="Where sessions are kept: sqlite:///friday.db, redis://…, postgresql://…, memory. Without it where the "
    "application says, else where GREENROOM_SESSIONS says, else in a SQLite file with the application's name, in the "
    "working folder.",
)
@click.option("--debug", is_flag=True, help="Show whole tracebacks, and put exceptions' text on the wire.")
def serve(
    app: str,
    host: str,
    port: int,
    log_level: str,
    log_format: Any,
    drain_seconds: float | None,
    state: str | None,
    debug: bool,
) -> None:
    """Serve an application: app.py, app.py:name or package.module:name.

    It runs until Ctrl-C or SIGTERM; then it takes no more turns, lets those that run end, and leaves. An application
    written for AgentScope Runtime 1.0 is served as it is.
    """
    from greenroom.serve import (
        configure_logging,
        leave_in_time,
        load_application,
        own_file,
        run_application,
        unseen,
    )

    configure_logging("debug" if debug else log_level, log_format)
    try:
        application = load_application(app)
        if state is None and not application.keeps_sessions:
            state = os.environ.get("GREENROOM_SESSIONS") or own_file(application.app_name)
        application.configure(drain_seconds=drain_seconds, debug=True if debug else None, state=state)
        started = unseen if log_format == "json" else None
        run_application(application, host, port, started=started, stopped=leave_in_time)
    except Exception as error:
        if debug:
            raise
        _explain(error)


@main.command()
@click.argument("url")
@click.option("--session", "session_id", help="Go on with this session; a new one otherwise.")
@click.option("--user", "user_id", help="Whose session it is.")
@click.option("--once", metavar="TEXT", help="Say this, show the answer and leave.")
@click.option(
    "--header", "-H", "headers", multiple=True, metavar="'NAME: VALUE'", help="Sent with every request."
)
@click.option("--debug", is_flag=True, help="Show whole tracebacks.")
def chat(
    url: str,
    session_id: str | None,
    user_id: str | None,
    once: str | None,
    headers: tuple[str, ...],
    debug: bool,
) -> None:
    """Talk to an application that is served at URL.

    Ctrl-C stops an answer; Ctrl-D or /quit leaves; /new begins a new session. When the input is not a terminal every
    line of it is a turn.
    """
    from greenroom.chat import run_chat

    try:
        ok = run_chat(url, session_id=session_id, user_id=user_id, once=once, headers=headers)
    except Exception as error:
        if debug:
            raise
        _explain(error)
    if not ok:
        sys.exit(1)


def _explain(error: Exception) -> NoReturn:
    """Raise what click shows for an error. Raises the error itself when it is click's own."""
    from greenroom.actors.errors import GreenroomError
    from greenroom.load import NoSuchApplication, blames_user, users_part

    if isinstance(error, click.ClickException):
        raise error
    if isinstance(error, NoSuchApplication):
        raise Misused(error.message) from error
    if isinstance(error, GreenroomError):
        raise Failed(error.message) from error
    if blames_user(error):
        raise Failed(
            f"the application did not run, because one of its hooks failed:\n\n{users_part(error)}"
        ) from error
    raise Failed(
        f"{type(error).__name__}: {error}\n(--debug shows where; it may be a fault of Greenroom's)"
    ) from error


if __name__ == "__main__":
    main()
