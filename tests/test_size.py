"""Functions and files stay short enough to be read at once."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ("greenroom", "actors", "transports", "services", "sandbox")
LONGEST_FUNCTION = 60
LONGEST_FILE = 400
LONGEST_TEST_FILE = 600  # a test file is a list of cases, read one at a time


def modules(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted({path.resolve() for path in found})


def length(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def test_functions_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules(*LIBRARY, "tests")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_files_are_short() -> None:
    long = [path for path in modules(*LIBRARY) if length(path) > LONGEST_FILE]
    long += [path for path in modules("tests") if length(path) > LONGEST_TEST_FILE]
    assert not long, "\n".join(f"{path.relative_to(ROOT)}: {length(path)} lines" for path in long)
