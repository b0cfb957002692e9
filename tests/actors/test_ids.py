"""Ids: what they look like, that none comes twice, and that a forked process has its own."""

from __future__ import annotations

import subprocess
import sys
import uuid

from greenroom.actors.ids import DRAWN, uuid4_text

FORKED = """
import os
from greenroom.actors.ids import uuid4_text
uuid4_text()
child = os.fork()
os.write(1, f"{uuid4_text()}\\n".encode())
if child:
    os.waitpid(child, 0)
"""


def test_they_are_random_uuids_as_python_writes_them() -> None:
    ids = [uuid4_text() for _ in range(4 * DRAWN)]
    for text in ids:
        one = uuid.UUID(text)
        assert str(one) == text
        assert one.version == 4
        assert one.variant == uuid.RFC_4122
    assert len(set(ids)) == len(ids)


def test_every_digit_that_may_vary_does() -> None:
    ids = [uuid4_text() for _ in range(1000)]
    seen = [{text[place] for text in ids} for place in range(36)]
    assert [len(digits) for digits in seen] == [
        {8: 1, 13: 1, 14: 1, 18: 1, 19: 4, 23: 1}.get(place, 16) for place in range(36)
    ]


def test_a_forked_process_does_not_give_its_parents_ids() -> None:
    run = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, check=True, text=True)
    one, other = run.stdout.split()
    assert one != other
