"""`BaseSandbox`: a box of one's own, or of a session's, with Python and a shell in it."""

# No `from __future__ import annotations`: AgentScope 1.x reads the annotations of tool functions as they are.

import atexit
import re
import sys
import uuid
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from greenroom.actors.errors import ConfigurationError
from greenroom.sandbox.agentscope_chunks import tools_of
from greenroom.sandbox.backend import BoxKind
from greenroom.sandbox.calling import CallQueue, ToolAnswer, never_blocks, running_loop
from greenroom.sandbox.files import Files
from greenroom.sandbox.image.tool_schemas import BASE_TOOLS, BROWSER_TOOLS
from greenroom.sandbox.leases import LeaseKey
from greenroom.sandbox.result import ToolResult
from greenroom.sandbox.settings import SandboxSettings

if TYPE_CHECKING:
    import asyncio

    from greenroom.sandbox.client import BoxClient

Box = TypeVar("Box", bound="BaseSandbox")


class Keeps(Protocol):
    """What a sandbox object needs of the keeper of its box (`greenroom.sandbox.keeper.Keeper`)."""

    async def call(
        self, key: LeaseKey, tool: str, arguments: Mapping[str, Any], seconds: float | None = None
    ) -> ToolResult:
        """Run one tool in the key's box."""
        ...

    def client(self, key: LeaseKey) -> AbstractAsyncContextManager["BoxClient"]:
        """The client of the key's box."""
        ...

    async def release(self, key: LeaseKey) -> None:
        """End the key's box."""
        ...

    async def stop(self) -> None:
        """End all boxes."""
        ...


class ToolList(dict[str, Any]):
    """Tools by server: `{server: {tool: {"name", "json_schema"}}}`. Printing it prints a line a tool. It may be
    awaited, which gives it."""

    def __await__(self) -> Generator[Any, None, "ToolList"]:
        return self
        yield

    def __str__(self) -> str:
        lines: list[str] = []
        for server, tools in self.items():
            lines.append(f"{server}:")
            for name, tool in tools.items():
                function = tool["json_schema"]["function"]
                arguments = ", ".join(function["parameters"]["properties"])
                lines.append(f"  {name}({arguments}): {function['description']}")
        return "\n".join(lines)


class BaseSandbox:
    """A sandbox with Python and a shell. Its box is made at the first use of a tool.

    In a plain script: `with BaseSandbox() as box: print(box.run_shell_command("ls"))`. In asyncio: `async with
    BaseSandbox() as box: print(await box.run_shell_command("ls"))`; a call that is not awaited is carried out all the
    same, in order. A sandbox of a session comes from `SandboxService.connect` or `session.browser`; its methods may be
    called from worker threads too, where they wait for their result.

    Parameters:
        base_url, bearer_token: a box that runs elsewhere, and its token: short for `SandboxSettings(backend=…,
            token=…)`.
        settings: how boxes are made; nothing: what the environment says (`SandboxSettings.from_environ`).
        sandbox_id, sandbox_type, workspace_dir: of AgentScope Runtime; refused, as there is nothing like them here.
    """

    kind: ClassVar[BoxKind] = "base"

    def __init__(
        self,
        sandbox_id: str | None = None,
        base_url: str | None = None,
        bearer_token: str | None = None,
        sandbox_type: object = None,
        workspace_dir: str | None = None,
        *,
        settings: SandboxSettings | None = None,
    ) -> None:
        _refuse(self.kind, sandbox_id, sandbox_type, workspace_dir)
        if base_url is not None:
            if settings is not None:
                raise ConfigurationError("base_url and settings both say where the box is; give one of them")
            settings = SandboxSettings(backend=base_url, token=bearer_token)
        self._settings = settings
        self._id = uuid.uuid4().hex
        self._key = LeaseKey("", f"alone-{self._id}", self.kind)
        self._keeper: Keeps | None = None
        self._leased = False
        self._portal: tuple[AbstractContextManager[BlockingPortal], BlockingPortal] | None = None
        self._calls = CallQueue(type(self).__name__)
        self.fs = Files(self._calls, self._client)

    def __repr__(self) -> str:
        whose = f" of session {self._key.session_id!r}" if self._leased else ""
        return f"<{type(self).__name__}{whose}{'' if self._keeper else ', not started'}>"

    # -- life ------------------------------------------------------------------------------------------------------

    @classmethod
    def leased(
        cls: type[Box], keeper: Keeps, key: LeaseKey, home: "asyncio.AbstractEventLoop | None" = None
    ) -> Box:
        """The sandbox that `keeper` has for `key`, to be used at once. `home`: the keeper's loop; nothing: the running
        one. Closing it releases its box; the next call gets a new one."""
        box = cls()
        box._keeper, box._key, box._leased = keeper, key, True
        box._calls.open(home)
        return box

    async def settled(self) -> None:
        """Wait until all calls made so far are done, those too that nobody awaits. On the sandbox's own loop."""
        await self._calls.settled()

    def end(self, why: str) -> None:
        """Refuse all further calls, those that still wait too: they raise `LeaseOver` with `why`."""
        self._calls.close(why)

    def __enter__(self: Box) -> Box:
        loop_runs = running_loop() is not None
        if loop_runs and not _in_jupyter():
            name = type(self).__name__
            raise ConfigurationError(
                f"`with {name}()` would block the event loop that runs here; write `async with {name}() as box:` and "
                "await the calls"
            )
        if self._portal is None:
            context = start_blocking_portal(name="greenroom sandbox")
            portal = context.__enter__()
            try:
                portal.call(self._open, loop_runs)
            except BaseException:
                context.__exit__(None, None, None)
                raise
            self._portal = context, portal
            atexit.register(self._leave)  # for those who start() and never close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    async def __aenter__(self: Box) -> Box:
        await self._open(False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    def start(self) -> Any:
        """Start without `with`; in asyncio `await box.start()`. Gives the sandbox."""
        return self.__aenter__() if running_loop() is not None else self.__enter__()

    def close(self) -> Any:
        """End it without `with`; in asyncio `await box.close()`. Calls made before are carried out first."""
        if running_loop() is not None and self._portal is None:
            return self._close()
        return self._leave()

    async def _open(self, waits_always: bool) -> None:
        if self._keeper is None:
            from greenroom.sandbox.standalone import started_keeper

            self._keeper = await started_keeper(self._settings or SandboxSettings.from_environ())
            self._calls.open(waits_always=waits_always)

    async def _close(self) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        await self._calls.settled()
        if self._leased:
            await keeper.release(self._key)
        else:
            self.end(f"this {type(self).__name__} was closed; make another one")
            self._keeper = None
            await keeper.stop()

    def _leave(self) -> None:
        held, self._portal = self._portal, None
        if held is not None:
            context, portal = held
            atexit.unregister(self._leave)
            try:
                portal.call(self._close)
            finally:
                context.__exit__(None, None, None)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def sandbox_id(self) -> str:
        """A name of this object, for logs."""
        return self._id

    def get_info(self) -> dict[str, Any]:
        """What may be shown of it."""
        return {
            "sandbox_id": self._id,
            "sandbox_type": self.kind,
            "user_id": self._key.user_id if self._leased else None,
            "session_id": self._key.session_id if self._leased else None,
            "state": "started" if self._keeper is not None else "not started",
        }

    def list_tools(self, tool_type: str | None = None) -> ToolList:
        """Its tools by server (`playwright`: the browser's; `generic`), with their JSON schemas, as the wire has them.
        `tool_type`: of that server only."""
        servers = {"playwright": BROWSER_TOOLS} if self.kind == "browser" else {}
        return ToolList(
            {
                server: {
                    name: {
                        "name": name,
                        "json_schema": {"type": "function", "function": {"name": name, **tool}},
                    }
                    for name, tool in tools.items()
                }
                for server, tools in {**servers, "generic": BASE_TOOLS}.items()
                if tool_type in {None, server}
            }
        )

    def tools(self, *names: str, ask: Collection[str] = ()) -> list[Any]:
        """Its tools for an agent, all or those named: with AgentScope 2.x `FunctionTool`s for `Toolkit(tools=…)`, with
        1.x functions for `toolkit.register_tool_function`.

        AgentScope 2.x asks the user before a tool runs unless told that it may. What runs in a sandbox may; tools named
        in `ask` ask nevertheless (1.x has no such thing). Raises `ConfigurationError` for unknown names.
        """
        known = {**(BROWSER_TOOLS if self.kind == "browser" else {}), **BASE_TOOLS}
        for name in (*names, *ask):
            if name not in known:
                raise ConfigurationError(
                    f"{type(self).__name__} has no tool {name!r}; it has {', '.join(known)}"
                )
        methods: list[Callable[..., Any]] = [getattr(self, name) for name in names or known]
        return tools_of(methods, ask)

    # -- tools -----------------------------------------------------------------------------------------------------

    def call_tool(
        self, name: str, arguments: Mapping[str, Any] | None = None, *, seconds: float | None = None
    ) -> ToolAnswer:
        """Call a tool by its name, with the arguments of its schema (`list_tools`). `seconds`: how long it may take."""
        given = dict(arguments or {})

        async def call() -> ToolAnswer:
            assert self._keeper is not None
            return ToolAnswer(await self._keeper.call(self._key, name, given, seconds))

        return self._calls.call(name, call)

    @never_blocks
    def run_ipython_cell(self, code: str) -> ToolAnswer:
        """Run Python code (an IPython cell) in the sandbox. Variables and imports stay for the next cell.
        What it prints, the value of its last line, and errors are the result. It runs in the workspace
        folder.

        Args:
            code (str): The code. `!command` and `%magic` work as in IPython.
        """
        return self._tool("run_ipython_cell", code=code)

    @never_blocks
    def run_shell_command(self, command: str) -> ToolAnswer:
        """Run a command in bash in the sandbox, in the workspace folder, and get its output, errors and exit
        code. Each command has a shell of its own: directories and variables do not stay. To keep a server
        running, start it in the background (`command > log 2>&1 &`); one that takes too long is ended with
        all it started.

        Args:
            command (str): The command line, for example `ls -l | head`.
        """
        return self._tool("run_shell_command", command=command)

    # Names of AgentScope Runtime's asynchronous twin.
    start_async, close_async, list_tools_async, call_tool_async = start, close, list_tools, call_tool

    async def get_info_async(self) -> dict[str, Any]:
        """`get_info`, awaited."""
        return self.get_info()

    def _tool(self, name: str, **arguments: Any) -> ToolAnswer:
        """Call a tool with arguments named as in Python."""
        return self.call_tool(name, {_wire_name(key): value for key, value in arguments.items()})

    def _client(self) -> AbstractAsyncContextManager["BoxClient"]:
        assert self._keeper is not None
        return self._keeper.client(self._key)


def _wire_name(name: str) -> str:
    """`start_ref` is `startRef` on the wire."""
    return re.sub(r"_(\w)", lambda match: match[1].upper(), name)


def _refuse(kind: str, sandbox_id: str | None, sandbox_type: object, workspace_dir: str | None) -> None:
    if sandbox_id is not None:
        raise ConfigurationError(
            "sandbox_id: boxes have no ids to attach to; `SandboxService.connect(session_id=…, user_id=…)` gives the "
            "same sandbox for the same session"
        )
    if workspace_dir is not None:
        raise ConfigurationError(
            "workspace_dir: folders of this machine are not mounted into sandboxes; copy files with "
            "`box.fs.write_from_path(…)` and `box.fs.read(…)`"
        )
    asked = str(getattr(sandbox_type, "value", sandbox_type) or kind).removesuffix("_async")
    if asked != kind:
        raise ConfigurationError(f"sandbox_type={asked!r}: this class is of the kind {kind!r}")


def _in_jupyter() -> bool:
    """Whether this is a notebook's kernel, in which a loop runs that cells may block."""
    ipython = sys.modules.get("IPython")
    return getattr(ipython.get_ipython() if ipython else None, "kernel", None) is not None
