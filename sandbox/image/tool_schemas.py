"""What the tools of a box are, for those who call them: names, descriptions and JSON schemas of their arguments.

Static, so that the host knows them without a box; the tool server checks arguments against the same ones. Names are the
official image's; where a tool takes more here than there, the argument is optional.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

Schema: TypeAlias = dict[str, Any]

_ELEMENT: Final = "What the element is, in words for a person, for example `Search button`."
_REF: Final = 'The element\'s reference in the newest snapshot: for `button "Search" [ref=e12]` it is `e12`.'


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "default": False, "description": description}


def _whole(description: str, minimum: int = 1, maximum: int | None = None) -> Schema:
    bounds = {"minimum": minimum} if maximum is None else {"minimum": minimum, "maximum": maximum}
    return {"type": "integer", "description": description, **bounds}


def _texts(description: str) -> Schema:
    return {"type": "array", "items": {"type": "string"}, "description": description}


def _tool(
    description: str, needed: Mapping[str, Schema] | None = None, optional: Mapping[str, Schema] | None = None
) -> Schema:
    properties = {**(needed or {}), **(optional or {})}
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(needed or ()),
        "additionalProperties": False,
    }
    return {"description": description, "parameters": parameters}


_TARGET: Final = {"element": _text(_ELEMENT), "ref": _text(_REF)}

_PAGES: Final[Mapping[str, Schema]] = {
    "browser_navigate": _tool(
        "Load a web address in the current tab, and get a snapshot of the page. Start here when nothing is open.",
        {
            "url": _text(
                "The address, for example `https://example.com/news`. http, https, about, data and blob only."
            )
        },
    ),
    "browser_navigate_back": _tool("Go back to the previous page of the current tab's history."),
    "browser_navigate_forward": _tool("Go forward to the next page of the current tab's history."),
    "browser_snapshot": _tool(
        "See the current page: its address, its title, and a tree of its elements (roles, names, texts) as YAML, where "
        "each element has a `[ref=...]` that the other tools take. Better than a screenshot for acting on a page. The "
        "answers of navigate, click, type and the like contain a new snapshot already.",
        optional={
            "ref": _text(
                "Only this element and what it contains, for pages that are too long. A ref of the newest one."
            ),
            "depth": _whole(
                "How many levels of elements to show, for an overview of a page that is too long."
            ),
        },
    ),
    "browser_take_screenshot": _tool(
        "Take a picture of what is visible of the current page, or of one element. Look at it where the page's looks "
        "matter; to act on elements you need the refs of browser_snapshot.",
        optional={
            "raw": _flag("true: PNG, lossless and larger. false: JPEG."),
            "filename": _text(
                "Also keep the picture, as this file in the workspace, for example `shots/home.png`."
            ),
            "element": _text(
                "What the element is, in words, if only one element is to be taken. Needs `ref`."
            ),
            "ref": _text(
                "The element's reference in the newest snapshot; without one, the visible page is taken."
            ),
        },
    ),
    "browser_wait_for": _tool(
        "Wait until a text appears, until a text is gone, or for some time, then get a snapshot. Prefer waiting for a "
        "text to waiting for time. With several arguments they are waited for one after another.",
        optional={
            "time": {
                "type": "number",
                "minimum": 0,
                "description": "Seconds to wait, fewer than the call may take. To wait for longer, call it again.",
            },
            "text": _text("Wait until this text is visible on the page."),
            "textGone": _text("Wait until this text is no longer visible on the page."),
        },
    ),
    "browser_resize": _tool(
        "Change the size of the browser's window, for example to see a page as on a phone.",
        {
            "width": _whole("Width in CSS pixels, for example 1280.", 50, 4000),
            "height": _whole("Height in CSS pixels, for example 720.", 50, 4000),
        },
    ),
    "browser_close": _tool("Close the current tab. When it was the last, an empty one takes its place."),
}

_ACTIONS: Final[Mapping[str, Schema]] = {
    "browser_click": _tool(
        "Click an element: a link, button, checkbox, radio button, tab and so on.", _TARGET
    ),
    "browser_type": _tool(
        "Fill a text field: its old content is replaced by the text.",
        {**_TARGET, "text": _text("The text that shall be in the field.")},
        {
            "submit": _flag("Press Enter afterwards, which submits most forms and searches."),
            "slowly": _flag(
                "Type key by key and keep the field's old content. For fields that react to single keys, such as those "
                "that suggest completions."
            ),
        },
    ),
    "browser_select_option": _tool(
        "Choose in a drop-down list (a `combobox` or `listbox` with `option`s made by a select element). What was "
        "chosen before is replaced. Lists made of other elements are clicked instead.",
        {
            **_TARGET,
            "values": _texts(
                "The options, by value or by visible label. More than one for lists that allow it."
            ),
        },
    ),
    "browser_hover": _tool(
        "Move the mouse over an element, for example to open a menu or see a tooltip.", _TARGET
    ),
    "browser_drag": _tool(
        "Drag one element and drop it onto another.",
        {
            "startElement": _text("What is dragged, in words for a person."),
            "startRef": _text("Its reference in the newest snapshot."),
            "endElement": _text("Onto what it is dropped, in words for a person."),
            "endRef": _text("Its reference in the newest snapshot."),
        },
    ),
    "browser_press_key": _tool(
        "Press a key, or a combination, where the keyboard's focus is.",
        {
            "key": _text(
                "A character such as `a`, or a key's name: `Enter`, `Tab`, `Escape`, `ArrowDown`, `PageDown`, "
                "`Backspace`. Combinations: `Control+a`, `Shift+Tab`."
            )
        },
    ),
    "browser_handle_dialog": _tool(
        "Answer a dialog of the page (alert, confirm, prompt, or the question whether to leave it). Until then the "
        "page stands still. Results say when one is open.",
        {"accept": {"type": "boolean", "description": "true: OK. false: Cancel."}},
        {"promptText": _text("What to enter, where the dialog asks for a text.")},
    ),
    "browser_file_upload": _tool(
        "Give files to the file chooser of the page. Click the page's upload button or file field first; the result "
        "says that a file chooser is open.",
        {
            "paths": _texts(
                "The files, in the workspace: `/workspace/report.pdf`, or `report.pdf`. An empty list cancels it."
            )
        },
    ),
}

_OBSERVATIONS: Final[Mapping[str, Schema]] = {
    "browser_console_messages": _tool(
        "Get the messages and errors of the page's console since it was loaded."
    ),
    "browser_network_requests": _tool(
        "Get the requests the page has made since it was loaded, with their status."
    ),
    "browser_pdf_save": _tool(
        "Save the current page as a PDF in the workspace.",
        optional={
            "filename": _text(
                "The file's name there, for example `article.pdf`. Without one, one is made up."
            )
        },
    ),
    "browser_tab_list": _tool("List the open tabs, with their numbers, titles and addresses."),
    "browser_tab_new": _tool(
        "Open a tab and make it the current one.",
        optional={"url": _text("The address to load in it. Without one it stays empty.")},
    ),
    "browser_tab_select": _tool(
        "Make another tab the current one, and get a snapshot of it.",
        {"index": _whole("The tab's number in browser_tab_list; the first is 1.")},
    ),
    "browser_tab_close": _tool(
        "Close a tab. If it was the current one, the one before it becomes that.",
        optional={
            "index": _whole(
                "The tab's number in browser_tab_list; the first is 1. Without one, the current tab."
            )
        },
    ),
}

BROWSER_TOOLS: Final[Mapping[str, Schema]] = {**_PAGES, **_ACTIONS, **_OBSERVATIONS}
"""Tools of a box of the kind `browser`."""

BASE_TOOLS: Final[Mapping[str, Schema]] = {
    "run_ipython_cell": _tool(
        "Run Python code (an IPython cell) in the sandbox. Variables and imports stay for the next cell. What it "
        "prints, the value of its last line, and errors are the result. It runs in the workspace folder.",
        {"code": _text("The code. `!command` and `%magic` work as in IPython.")},
    ),
    "run_shell_command": _tool(
        "Run a command in bash in the sandbox, in the workspace folder, and get its output, errors and exit code. "
        "Each command has a shell of its own: directories and variables do not stay. To keep a server running, "
        "start it in the background (`command > log 2>&1 &`); one that takes too long is ended with all it started.",
        {"command": _text("The command line, for example `ls -l | head`.")},
    ),
}
"""Tools of every box."""

TOOLS: Final[Mapping[str, Schema]] = {**BROWSER_TOOLS, **BASE_TOOLS}
"""All: name to `{"description": ..., "parameters": <JSON schema of an object>}`."""
