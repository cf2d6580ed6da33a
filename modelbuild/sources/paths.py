"""Data in the workspace: a file or a folder in place, or the files that a glob matches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import ClassVar

from modelbuild.errors import InvalidInputError, ModelbuildError
from modelbuild.sources.source import (
    Found,
    SourceAbsentError,
    SourceContext,
    exists,
    nearest,
    publish,
    use_in_place,
)
from modelbuild.sources.workspace import LOCK_NAME
from modelbuild.spec.digest import Digest
from modelbuild.spec.globs import glob_parts, plain_parts
from modelbuild.spec.recipe import PathData
from modelbuild.store.copies import copy_file
from modelbuild.store.stat_cache import CachedTree, Selection
from modelbuild.store.tree import changed_while_read, shown, system_errors


@dataclass(frozen=True, slots=True)
class PathSource:
    """`path = "..."` of one data table."""

    name: str
    data: PathData
    context: SourceContext
    fixed: ClassVar[bool] = False

    def find(self, expected: Digest | None) -> Found:
        if self.data.is_glob:
            return self._find_matches(expected)
        path = self._inside(self.data.path)
        if not exists(path):
            raise self._missing(path, expected)
        if os.path.samefile(path, self.context.workspace):
            raise InvalidInputError(
                f"{self._title()} is the whole workspace",
                facts=[("wanted", f"a folder without {LOCK_NAME}, which holds the data's digest")],
                hint="Put the data into a folder of its own.",
            )
        return use_in_place(path, expected, self.context)

    def _title(self) -> str:
        return f"{self.context.recipe.where(f'data.{self.name}')}: data '{self.name}'"

    def _inside(self, path: str) -> Path:
        """The absolute path. Raises InvalidInputError where a link leads out of the workspace."""
        place = Path(os.path.normpath(self.context.folder / path))
        if not _leads_to(place, os.path.realpath(self.context.workspace)):
            raise InvalidInputError(
                f"{self._title()} leaves the workspace",
                facts=[("path", path), ("leads to", shown(os.path.realpath(place)))],
                hint="Data that lives elsewhere is named, and each user maps the name: "
                'location = "NAME"',
            )
        return place

    def _missing(self, path: Path, expected: Digest | None) -> ModelbuildError:
        folder, name = path.parent, path.name
        while not folder.is_dir():
            folder, name = folder.parent, folder.name
        facts = [("wanted", self.data.path), *_nearest_in(folder, name, self.context.folder)]
        error = InvalidInputError if expected is None else SourceAbsentError
        return error(f"{self._title()} does not exist", facts=facts)

    def _find_matches(self, expected: Digest | None) -> Found:
        parts = glob_parts(self.data.path)
        plain = plain_parts(parts)
        folder = self._inside("/".join(parts[:plain]))
        wildcards = parts[plain:]
        matches = self._matches(folder, wildcards, expected)
        cache = self.context.cache
        selection = Selection("/".join(wildcards), matches)
        tree = cache.tree(folder, keep=expected, only=selection)
        if expected not in (None, tree.digest):
            changed = cache.changes(folder, expected, only=selection)
            return _found(folder, tree, changed)
        stored = self.context.store.path(tree.digest, self.name)
        return _found(stored if stored.exists() else self._copy(folder, matches, tree), tree)

    def _matches(
        self, folder: Path, wildcards: Sequence[str], expected: Digest | None
    ) -> tuple[bytes, ...]:
        found: set[str] = set()
        links: set[str] = set()
        if folder.is_dir():
            for item in _glob(str(folder), wildcards, str(self.context.store.root)):
                (links if item.is_symlink() else found).add(item.path)
        store = os.path.realpath(self.context.store.root)
        links = {link for link in links if not _leads_to(link, store)}
        if not found:
            raise self._no_match(folder, links, expected)
        if links and expected is None:
            names = ", ".join(shown(os.path.relpath(link, folder)) for link in sorted(links))
            self.context.on_progress(f"data '{self.name}': links are not followed: {names}")
        return tuple(sorted(os.fsencode(os.path.relpath(path, folder)) for path in found))

    def _no_match(self, folder: Path, links: set[str], expected: Digest | None) -> ModelbuildError:
        facts = [("wanted", self.data.path)]
        if links:
            facts.append(("found", "only links, which a glob does not follow"))
        elif not folder.is_dir():
            facts.append(("found", f"no folder {os.path.relpath(folder, self.context.folder)}"))
        error = InvalidInputError if expected is None else SourceAbsentError
        return error(f"{self._title()} matches no file", facts=facts)

    def _copy(self, folder: Path, matches: tuple[bytes, ...], tree: CachedTree) -> Path:
        top = os.fsencode(folder)
        with self.context.store.temporary("data") as work:
            content = work / "content"
            for match in matches:
                copy = os.path.join(os.fsencode(content), match)
                os.makedirs(os.path.dirname(copy), exist_ok=True)
                copy_file(os.path.join(top, match), copy)
            found = publish(content, self.name, self.context)
        if found.digest != tree.digest:
            raise changed_while_read(top)
        return found.path


def _found(path: Path, tree: CachedTree, changed: list[bytes] | None = None) -> Found:
    return Found(
        path=path,
        digest=tree.digest,
        files=tree.files,
        bytes=tree.bytes,
        file=None,
        changed=changed,
    )


def _leads_to(path: str | Path, folder: str) -> bool:
    """Whether a path, its links followed, is at or below a folder that is free of links."""
    return Path(os.path.realpath(path)).is_relative_to(folder)


def _nearest_in(folder: Path, name: str, start: Path) -> list[tuple[str, str]]:
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    base = os.path.relpath(folder, start)
    return [
        (label, shown(os.path.normpath(os.path.join(base, word))))
        for label, word in nearest(name, names)
    ]


def _glob(folder: str, parts: Sequence[str], store: str) -> Iterator[os.DirEntry[str]]:
    """The files, and links to files, below `folder` that match, in any order.

    `**` stands for any number of folders. Hidden names match only a part that begins with a
    dot. Links to folders are not followed; the store and the lock are passed over.
    """
    part, rest = parts[0], parts[1:]
    if part == "**":
        # Consecutive `**` mean the same as one, and would find files twice.
        while rest[0] == "**":
            rest = rest[1:]
        yield from _glob(folder, rest, store)
        for item in _list(folder):
            if _is_folder(item, store) and not item.name.startswith("."):
                yield from _glob(item.path, ["**", *rest], store)
        return
    for item in _list(folder):
        if not _matches_name(item.name, part):
            continue
        if rest:
            if _is_folder(item, store):
                yield from _glob(item.path, rest, store)
        elif not os.path.isdir(item.path) and item.name != LOCK_NAME:
            yield item


def _list(folder: str) -> list[os.DirEntry[str]]:
    with system_errors(os.fsencode(folder)), os.scandir(folder) as items:
        return list(items)


def _is_folder(item: os.DirEntry[str], store: str) -> bool:
    return item.is_dir(follow_symlinks=False) and item.path != store


def _matches_name(name: str, part: str) -> bool:
    return fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
