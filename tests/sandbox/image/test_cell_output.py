"""What a cell's messages become: the kernel that sends them runs what models and pages say."""

from __future__ import annotations

import base64

from greenroom.sandbox.image.cell_output import PICTURE_LENGTH, PICTURES, CellOutput
from greenroom.sandbox.image.output import OUTPUT_BYTES


def shown(output: CellOutput, encoded: str) -> None:
    output.take("display_data", {"data": {"image/png": encoded, "text/plain": "<Figure>"}})


def test_a_picture_that_no_model_takes_is_left_out_and_told() -> None:
    output = CellOutput()
    small = base64.b64encode(b"small").decode()
    shown(output, "A" * (PICTURE_LENGTH + 4))
    shown(output, small)
    answer = output.answer()
    assert [part["data"] for part in answer["content"] if part["type"] == "image"] == [small]
    assert "too large" in answer["content"][0]["text"]
    assert "<Figure>" in answer["content"][0]["text"]


def test_a_cell_shows_so_many_pictures_and_no_more() -> None:
    output = CellOutput()
    for _ in range(PICTURES + 1):
        shown(output, base64.b64encode(b"small").decode())
    kinds = [part["type"] for part in output.answer()["content"]]
    assert kinds.count("image") == PICTURES


def test_a_kernel_that_says_odd_things_of_an_exit_is_told_within_bounds() -> None:
    output = CellOutput()
    output.take("error", {"ename": "SystemExit", "evalue": "x" * 1_000_000, "traceback": []})
    answer = output.answer()
    assert answer["isError"]
    assert len(answer["content"][1]["text"]) < 2 * OUTPUT_BYTES
    assert "with exit code 1;" in answer["content"][1]["text"]
