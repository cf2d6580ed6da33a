"""Nothing to do, noticed without reading a recipe.

The answer of a `build` that changed nothing is kept with the status of every file and folder
that decided it. As long as none of them moved, it is the answer again. To lose what is kept
costs time only. Imports are few: they would take longer than the work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

TRUSTED_AFTER_NS = 2_000_000_000
"""A file that changed more recently could change again and keep its times (see stat_cache)."""
FORMAT = 1


class Decided(NamedTuple):
    """What an answer depends on."""

    paths: Iterable[str]
    """Files and folders, absolute; one that is absent must stay so."""
    folders: Mapping[str, str]
    """Folders with data in place, and the signature of all below them."""


def recall(store: str, question: Sequence[str]) -> dict[str, str] | None:
    """The answer to the same question, if all that decided it is as it was."""
    import json

    try:
        with open(_place(store, question), "rb") as file:
            kept = json.load(file)
        if kept["format"] != FORMAT or kept["question"] != list(question):
            return None
        if any(_status(path) != status for path, status in kept["statuses"].items()):
            return None
        if not _same_folders(store, kept["folders"]):
            return None
        answer: dict[str, str] = kept["answer"]
        return answer
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(
    store: str, question: Sequence[str], decided: Decided, answer: Mapping[str, str], since: int
) -> None:
    """Keep an answer, unless a file moved so recently that a change could go unnoticed.

    `since` is the time, in nanoseconds, before the first of the files was read.
    """
    import json

    statuses = {path: _status(path) for path in decided.paths}
    limit = min(since, time.time_ns() - TRUSTED_AFTER_NS)
    if any(max(status[2:4]) > limit for status in statuses.values() if status):
        return
    document = {
        "format": FORMAT,
        "question": list(question),
        "statuses": statuses,
        "folders": dict(decided.folders),
        "answer": dict(answer),
    }
    place = _place(store, question)
    temporary = f"{place}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(temporary, "w") as file:
            json.dump(document, file)
        os.replace(temporary, place)
    except OSError:  # a store that is full or read-only has answered all the same
        if os.path.exists(temporary):
            os.unlink(temporary)


def _place(store: str, question: Sequence[str]) -> str:
    from blake3 import blake3

    name = blake3("\0".join(question).encode(errors="surrogateescape")).hexdigest()
    return os.path.join(store, "unchanged", name[:40])


def _status(path: str) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mode, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _same_folders(store: str, folders: Mapping[str, str]) -> bool:
    if not folders:
        return True
    from pathlib import Path

    from modelbuild.store.stat_cache import StatCache

    cache = StatCache.of(Path(store))
    return all(cache.signature(Path(path)) == signature for path, signature in folders.items())
