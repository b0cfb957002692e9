"""Arguments are checked against the schemas, and the schemas are whole."""

import inspect
import json

import pytest

from greenroom.sandbox.image.answers import ToolError
from greenroom.sandbox.image.arguments import checked
from greenroom.sandbox.image.calling import HANDLE_DIALOG
from greenroom.sandbox.image.calling import TOOLS as IMPLEMENTED
from greenroom.sandbox.image.tool_schemas import BASE_TOOLS, BROWSER_TOOLS, TOOLS

OFFICIAL = {
    "browser_close": [],
    "browser_resize": ["width", "height"],
    "browser_console_messages": [],
    "browser_handle_dialog": ["accept", "promptText"],
    "browser_file_upload": ["paths"],
    "browser_press_key": ["key"],
    "browser_navigate": ["url"],
    "browser_navigate_back": [],
    "browser_navigate_forward": [],
    "browser_network_requests": [],
    "browser_pdf_save": ["filename"],
    "browser_take_screenshot": ["raw", "filename", "element", "ref"],
    "browser_snapshot": [],
    "browser_click": ["element", "ref"],
    "browser_drag": ["startElement", "startRef", "endElement", "endRef"],
    "browser_hover": ["element", "ref"],
    "browser_type": ["element", "ref", "text", "submit", "slowly"],
    "browser_select_option": ["element", "ref", "values"],
    "browser_tab_list": [],
    "browser_tab_new": ["url"],
    "browser_tab_select": ["index"],
    "browser_tab_close": ["index"],
    "browser_wait_for": ["time", "text", "textGone"],
    "run_ipython_cell": ["code"],
    "run_shell_command": ["command"],
}


def test_the_official_tools_are_all_there_with_their_arguments() -> None:
    assert TOOLS.keys() == OFFICIAL.keys()
    for name, arguments in OFFICIAL.items():
        assert set(arguments) <= TOOLS[name]["parameters"]["properties"].keys()


def test_what_is_described_is_implemented() -> None:
    assert {*IMPLEMENTED, HANDLE_DIALOG} == set(BROWSER_TOOLS)
    assert all(inspect.iscoroutinefunction(tool.run) for tool in IMPLEMENTED.values())


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_and_argument_is_described(name: str) -> None:
    parameters = TOOLS[name]["parameters"]
    assert json.loads(json.dumps(TOOLS[name])) == TOOLS[name]
    assert len(TOOLS[name]["description"]) > 20
    assert set(parameters["required"]) <= parameters["properties"].keys()
    for schema in parameters["properties"].values():
        assert len(schema["description"]) > 10


def test_what_is_plainly_meant_is_put_right() -> None:
    assert checked("browser_tab_select", {"index": "2"}) == {"index": 2}
    assert checked("browser_tab_select", {"index": 2.0}) == {"index": 2}
    assert checked("browser_take_screenshot", {"raw": "True", "ref": None}) == {"raw": True}
    assert checked("browser_file_upload", {"paths": "a.txt"}) == {"paths": ["a.txt"]}
    assert checked("browser_type", {"ref": "e1"}) == {"ref": "e1", "element": "", "text": ""}
    assert checked("browser_type", {"ref": "e1", "text": 5})["text"] == "5"
    assert checked("browser_wait_for", {"time": "1.5"}) == {"time": 1.5}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("browser_navigate", {}, "needs 'url'"),
        ("browser_navigate", {"url": ""}, "needs 'url'"),
        ("browser_navigate", {"url": ["x"]}, "must be of the type string"),
        ("browser_click", {"element": "x"}, "needs 'ref'"),
        ("browser_click", {"ref": "e1", "selector": "#x"}, "no argument 'selector'. It takes: element, ref"),
        ("browser_close", {"x": 1}, "It takes: none"),
        ("browser_tab_select", {"index": 0}, r"at least 1, not 0\."),
        ("browser_tab_select", {"index": True}, "must be of the type integer"),
        ("browser_tab_select", {"index": 1.5}, "must be of the type integer"),
        ("browser_resize", {"width": 5, "height": 100}, "at least 50 and at most 4000"),
        ("browser_wait_for", {"time": "NaN"}, r"must be of the type number, not 'NaN'\. Seconds to wait"),
        ("browser_wait_for", {"time": "soon"}, "must be of the type number, not 'soon'"),
        ("browser_wait_for", {"time": "a moment " * 1000}, r"^.{,250}$"),
        ("browser_wait_for", {"time": -1}, "must be at least 0 and at most .*, not -1"),
        ("browser_wait_for", {"time": float("inf")}, r"at most 1e\+09, not inf"),
        ("browser_wait_for", {"time": 1e12}, r"at most 1e\+09, not 1000000000000\.0"),
        ("browser_tab_select", {"index": 10**400}, "must be of the type integer, not 1000"),
        (
            "browser_tab_select",
            {"index": 10**300},
            r"must be at least 1 and at most 1e\+09, not 1000.{,150}$",
        ),
        ("browser_handle_dialog", {"accept": "perhaps"}, "must be of the type boolean"),
        ("browser_file_upload", {"paths": [1]}, "must be of the type array"),
    ],
)
def test_what_is_wrong_is_said(name: str, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ToolError, match=said):
        checked(name, arguments)


@pytest.mark.parametrize(
    ("time", "seconds", "most"),
    [(55.1, 60, "55"), ("3600", 60, "55"), (float("inf"), 60, "55"), (1e300, 60, "55"), (10, 10, "9")],
)
def test_a_wait_that_is_longer_than_its_call_is_refused(time: object, seconds: float, most: str) -> None:
    with pytest.raises(
        ToolError, match=rf"at least 0 and at most {most}, not .* To wait for longer, call it again"
    ):
        checked("browser_wait_for", {"time": time}, seconds)
    assert checked("browser_wait_for", {"time": most}, seconds) == {"time": float(most)}
    assert checked("browser_wait_for", {"time": most}, seconds - 0.01) == {"time": float(most)}


def test_base_tools_take_text() -> None:
    assert checked("run_shell_command", {"command": "ls"}) == {"command": "ls"}
    assert set(BASE_TOOLS) == {"run_ipython_cell", "run_shell_command"}
