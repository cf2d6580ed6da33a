"""One distribution of a base interpreter: its files as they are on the disk.

What an installer writes about its own work is left out (RECORD, INSTALLER, bytecode), and scripts
name the interpreter of a stage: so the same wheel, installed in two places, is the same tree.

    site-packages/...    what lies in the folder of packages
    prefix/...           the rest, relative to the interpreter's prefix: bin/, share/, ...
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from functools import cached_property
from pathlib import Path

from blake3 import blake3

from modelbuild.environment.venv import PLACE as ENVIRONMENT_PLACE
from modelbuild.errors import UnavailableError
from modelbuild.store.copies import copy_file
from modelbuild.store.stat_cache import Selection, StatCache
from modelbuild.store.tree import Entry, Tree

PACKAGES, PREFIX = "site-packages", "prefix"
_OF_THE_INSTALLER = {
    *("RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json"),
    *("uv_cache.json", "uv_build.json", "installed-files.txt"),
}
_PYTHON_LINE = re.compile(rb"#![^\n]*/python[\d.]*[ \t]*(?=\n)")
_SHELL_LINES = re.compile(rb"#!/bin/sh\n'''exec' [^\n]*\n[^\n]*(?=\n)")
"""What installers write where the path is long or has spaces."""


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """Something that an installer put there, with its metadata."""

    name: str
    info: Path
    """`NAME-VERSION.dist-info`, or `.egg-info`, which may be a file."""
    folder: Path
    """The folder of packages that it lies in."""

    @cached_property
    def headers(self) -> Message:
        files = (self.info / "METADATA", self.info / "PKG-INFO", self.info)
        file = next((file for file in files if file.is_file()), None)
        text = file.read_text(encoding="utf-8", errors="replace") if file else ""
        return HeaderParser().parsestr(text, headersonly=True)

    @property
    def version(self) -> str:
        return str(self.headers["Version"] or "")

    @property
    def prefix(self) -> Path:
        """What `bin` and `share` lie in, where the folder of packages is an ordinary one."""
        ordinary = self.folder.name in ("site-packages", "dist-packages")
        if ordinary and self.folder.parent.name.startswith("python"):
            return self.folder.parents[2]
        return self.folder

    @cached_property
    def files(self) -> Mapping[str, str]:
        """Paths relative to `prefix`, by their place in the tree.

        Raises UnavailableError where they can't be told from others'.
        """
        found: dict[str, str] = {}
        info, prefix = str(self.info), f"{self.prefix}/"
        for file in self._listed():
            if file.endswith((".pyc", ".pyo")) or not os.path.isfile(file):
                continue
            if os.path.dirname(file) == info and os.path.basename(file) in _OF_THE_INSTALLER:
                continue
            for place, folder in ((PACKAGES, f"{self.folder}/"), (PREFIX, prefix)):
                if file.startswith(folder):
                    found[f"{place}/{file[len(folder) :]}"] = file[len(prefix) :]
                    break
            else:
                raise self._not_told("it has files outside of the interpreter's prefix", file)
        return found

    def tree(self, cache: StatCache) -> Tree:
        """Of the files as they will be in the store; read where their statuses moved."""
        places = sorted(self.files)
        paths = tuple(os.fsencode(self.files[place]) for place in places)
        entries = cache.entries(self.prefix, Selection(f"distribution {self.name}", paths))
        return Tree.of(map(self._entry, places, entries))

    def copy(self, target: Path) -> None:
        """The tree as the new folder `target`."""
        for place, path in self.files.items():
            copy = target / place
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy_file(os.fsencode(self.prefix / path), os.fsencode(copy))
            if (script := self._script(place)) is not None:
                copy.write_bytes(script)

    def _entry(self, place: str, entry: Entry) -> Entry:
        script = self._script(place)
        if script is None:
            return entry._replace(path=os.fsencode(place))
        digest = blake3(script).hexdigest()
        return Entry(os.fsencode(place), entry.kind, digest, len(script))

    def _script(self, place: str) -> bytes | None:
        """The content of a script whose first line named the base interpreter, with a stage's."""
        if not place.startswith(f"{PREFIX}/bin/"):
            return None
        with (self.prefix / self.files[place]).open("rb") as file:
            if file.read(2) != b"#!":
                return None
            content = b"#!" + file.read()
        line = b"#!" + f"{ENVIRONMENT_PLACE}/bin/python".encode()
        for pattern in (_PYTHON_LINE, _SHELL_LINES):
            if match := pattern.match(content):
                return line + content[match.end() :]
        return None

    def _listed(self) -> Iterator[str]:
        """Absolute paths, of folders and missing files too."""
        if self._is_editable():
            raise self._not_told("it is installed as editable, from a folder elsewhere", None)
        for record, folder in (("RECORD", self.folder), ("installed-files.txt", self.info)):
            if (self.info / record).is_file():
                text = (self.info / record).read_text(encoding="utf-8")
                for row in csv.reader(io.StringIO(text)):
                    yield os.path.normpath(os.path.join(folder, *row[:1]))
                return
        yield from _below(self.info)
        for name in self._top_level():
            yield from self._of_module(name)

    def _is_editable(self) -> bool:
        try:
            origin = json.loads((self.info / "direct_url.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            # `setup.py develop` leaves an .egg-info beside the sources.
            return self.info.suffix == ".egg-info" and self.prefix == self.folder
        return bool(origin.get("dir_info", {}).get("editable"))

    def _top_level(self) -> list[str]:
        try:
            names = (self.info / "top_level.txt").read_text(encoding="utf-8").split()
        except (FileNotFoundError, NotADirectoryError):
            names = []
        if not names:
            raise self._not_told("it has no list of its files", None)
        return names

    def _of_module(self, name: str) -> Iterator[str]:
        folder = self.folder / name
        if (folder / "__init__.py").is_file():
            yield from _below(folder)
            return
        files = [self.folder / f"{name}.py", *sorted(self.folder.glob(f"{name}.*.so"))]
        files = [file for file in files if file.is_file()]
        if not files:
            raise self._not_told("it has no list of its files", f"module {name}")
        yield from map(str, files)

    def _not_told(self, why: str, what: str | None) -> UnavailableError:
        facts = [("distribution", str(self.info)), ("because", why)]
        return UnavailableError(
            f"'{self.name}' of the base interpreter can't be locked",
            facts=[*facts, ("found", what)] if what else facts,
            hint="Install it there as a wheel: pip install --force-reinstall --no-deps "
            f"{self.name}. Modules of your own belong under [code].",
        )


def _below(path: Path) -> Iterator[str]:
    """All files of a folder, or the file itself. Links to folders are not followed."""
    if path.is_file():
        yield str(path)
    for parent, _, names in os.walk(path):
        yield from (os.path.join(parent, name) for name in names)
