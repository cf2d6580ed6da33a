"""Logs: whole up to a bound, then both ends; the last line for a progress display."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelbuild.build import log as log_module
from modelbuild.build.log import StageLog


def test_a_log_is_kept_whole(tmp_path: Path) -> None:
    with StageLog(tmp_path / "folder") as log:
        log.write(b"one\ntw")
        log.write(b"o\n")
    assert log.path.read_bytes() == b"one\ntwo\n"


def test_beyond_the_bound_both_ends_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "HEAD_BYTES", 10)
    monkeypatch.setattr(log_module, "TAIL_BYTES", 10)
    with StageLog(tmp_path) as log:
        for number in range(100):
            log.write(b"%03d\n" % number)
    assert log.path.read_bytes() == (
        b"000\n001\n00\n[... 378 bytes are not kept ...]\n097\n098\n099\n"
    )


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        (b"", ""),
        (b"epoch 1\n", "epoch 1"),
        (b"epoch 1\nepo", "epoch 1"),
        (b"\r 10%\r 20%\r 3", " 20%"),
        (b"done\n\n\n", "done"),
        (b"\xff\n", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_last_line_is_the_last_complete_one(tmp_path: Path, printed: bytes, line: str) -> None:
    with StageLog(tmp_path) as log:
        log.write(printed)
    assert log.last_line == line
