"""What the tests of JavaScript clients run on."""

from __future__ import annotations

from pathlib import Path

import pytest

from kits.node_clients import PACKAGE, NodeMissing, check_node, modules_folder


def test_without_node_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeMissing, match=r"node, 20 or newer, and npm .* apt-get install nodejs npm"):
        check_node()


def test_a_node_that_is_too_old_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, says in (("node", "v18.20.4"), ("npm", "9")):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {says}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NodeMissing):
        check_node()


def test_the_packages_lie_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENROOM_CACHE", str(tmp_path))
    assert modules_folder().parent == tmp_path / "node"


def test_the_lock_file_names_no_registry() -> None:
    """Whoever installs has a registry, or a mirror, of his own."""
    assert '"resolved"' not in (PACKAGE / "package-lock.json").read_text()
