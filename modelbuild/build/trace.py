"""What a stage records of its training: asked for before it runs, kept beside its log.

The stage's own code can write to the folder as well, or delete it. So nothing in it is trusted:
only regular files with the names of ours are kept, up to a bound, and no link is followed.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelbuild.spec.canonical import Json

REQUEST = "request.json"
MOST_FILES = 4096
MOST_BYTES = 4 << 30
MOST_NOTES = 20
NOTE_LENGTH = 300
_NOTES_BYTES = 64 << 10
"""Read of one file of notes."""
_OF_A_RANK = re.compile(r"(.+), in rank ([0-9]{1,6}) of ([0-9]{1,6})")
_OURS = re.compile(r"(steps|notes|operations)-[0-9][0-9.r-]*\.(bin|txt|jsonl)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What a stage recorded."""

    folder: Path | None
    """None where it recorded nothing."""
    notes: tuple[str, ...]
    """What the processes of the stage said of themselves, each once."""


def ask(folder: Path, wanted: Mapping[str, Json]) -> None:
    """Make the folder that a stage gets at /build/trace, with what is to be recorded."""
    folder.mkdir()
    (folder / REQUEST).write_text(json.dumps(wanted, sort_keys=True) + "\n")


def keep(folder: Path, log: Path) -> Kept:
    """Move what a stage recorded beside its log. Nothing that is wrong with it is an error."""
    target = log.with_suffix(".trace")
    try:
        folder.chmod(0o700)
        names, complaint = _wanted(folder)
        if names:
            target.mkdir()
        for name in names:
            (folder / name).rename(target / name)
            (target / name).chmod(0o444)
        notes = [
            note for name in names if name.startswith("notes-") for note in _notes(target / name)
        ]
    except OSError as error:
        there = target if target.is_dir() else None
        return Kept(folder=there, notes=(f"its trace can't be kept: {error.strerror}",))
    notes = _each_once(notes)
    if len(notes) > MOST_NOTES:
        notes[MOST_NOTES:] = [f"and {len(notes) - MOST_NOTES} more notes"]
    return Kept(folder=target if names else None, notes=(*notes, *complaint))


def _each_once(notes: Iterable[str]) -> list[str]:
    """What some ranks of a training said, with the ranks; what all of them said, without."""
    said: dict[tuple[str, int], set[int]] = {}
    for note in notes:
        ranked = _OF_A_RANK.fullmatch(note)
        text, rank, count = ranked.groups() if ranked else (note, 0, 0)
        said.setdefault((text, int(count)), set()).add(int(rank))
    return [
        text if len(ranks) >= count else f"{text}, in {_ranks(ranks)} of {count}"
        for (text, count), ranks in said.items()
    ]


def _ranks(ranks: Iterable[int]) -> str:
    shown = ", ".join(str(rank) for rank in sorted(ranks))
    return f"ranks {shown}" if "," in shown else f"rank {shown}"


def _wanted(folder: Path) -> tuple[list[str], list[str]]:
    """The files to keep, sorted, and a complaint about what there is besides."""
    names: list[str] = []
    left = MOST_BYTES
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        status = entry.stat(follow_symlinks=False)
        regular = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if regular and _OURS.fullmatch(entry.name) and status.st_size <= left:
            names.append(entry.name)
            left -= status.st_size
    names = names[:MOST_FILES]
    others = len(entries) - len(names) - any(entry.name == REQUEST for entry in entries)
    if not others:
        return names, []
    things = (
        "1 thing in its trace folder is"
        if others == 1
        else f"{others} things in its trace folder are"
    )
    return names, [f"{things} not kept: too large, or not made by us"]


def _notes(path: Path) -> list[str]:
    """A note a line, each short and printable."""
    with path.open("rb") as file:
        lines = file.read(_NOTES_BYTES).decode(errors="replace").splitlines()
    shown = ("".join(c if c.isprintable() else " " for c in line[:NOTE_LENGTH]) for line in lines)
    return [line.strip() for line in shown if line.strip()]
