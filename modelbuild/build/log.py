"""What a stage prints: kept whole up to a bound, then its beginning and its end."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from modelbuild.spec.derivation import StageId
from modelbuild.spec.digest import Digest
from modelbuild.store.store import Store

HEAD_BYTES = 32 << 20
TAIL_BYTES = 8 << 20


def log_folder(identity: StageId, workspace: Path, store: Store) -> Path:
    """Where the logs of a stage of a workspace are, one a run, numbered from the first."""
    place = Digest.of(os.fsencode(workspace)).hex[:12]
    return store.root / "logs" / place / identity.recipe / identity.stage


def _new_file(folder: Path) -> tuple[Path, BinaryIO]:
    """The next number that no other process takes."""
    number = len([name for name in os.listdir(folder) if name.endswith(".log")])
    while True:
        number += 1
        path = folder / f"{number:06}.log"
        try:
            return path, path.open("xb")
        except FileExistsError:
            continue


class StageLog:
    """A log file that a stage which prints a gigabyte can't fill the disk with.

    Takes constant memory.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self._file = _new_file(folder)
        self._head_left = HEAD_BYTES
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._dropped = 0
        self._end = b""

    def __enter__(self) -> StageLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._dropped:
            self._file.write(b"\n[... %d bytes are not kept ...]\n" % self._dropped)
        self._file.writelines(self._tail)
        self._file.close()

    def write(self, chunk: bytes) -> None:
        self._end = (self._end + chunk)[-65536:]
        if self._head_left:
            self._file.write(chunk[: self._head_left])
            self._file.flush()
            chunk, self._head_left = (
                chunk[self._head_left :],
                max(0, self._head_left - len(chunk)),
            )
        if chunk:
            self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        self._tail.append(chunk)
        self._tail_bytes += len(chunk)
        while self._tail_bytes - len(self._tail[0]) > TAIL_BYTES:
            gone = len(self._tail.popleft())
            self._tail_bytes -= gone
            self._dropped += gone

    @property
    def last_line(self) -> str:
        """The last line that is complete, at most 500 bytes of it.

        A carriage return ends one too: progress bars draw over themselves. What comes after it
        may still be in the middle of being printed.
        """
        complete = self._end.replace(b"\r", b"\n").rpartition(b"\n")[0].rstrip(b"\n")
        return complete.rpartition(b"\n")[2][:500].decode(errors="replace")

    @property
    def end(self) -> bytes:
        """The last 64 KiB, for error messages."""
        return self._end
