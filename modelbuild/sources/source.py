"""Where data comes from: one small protocol, one module a kind.

`resolve` pins data at lock time, `realise` finds the pinned content at build time. Data is used
in place, where it already is a file or a folder of this machine, or it is a fixed output: an
object of the store, known by its digest before it is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

from modelbuild.errors import DigestMismatchError, ModelbuildError
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedData
from modelbuild.spec.recipe import Data, LocationData, PackageData, PathData, Recipe, UrlData
from modelbuild.store.stat_cache import StatCache
from modelbuild.store.store import Store
from modelbuild.store.tree import scan_file, scan_tree, shown, system_errors

_Paths: TypeAlias = Sequence[bytes]
_NAMED = 5
"""Changed files that a message names."""


class SourceAbsentError(ModelbuildError):
    """The data is not on this machine, or can't be fetched from here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceContext:
    """What the sources of one recipe need to know about this machine."""

    workspace: Path
    recipe: Recipe
    store: Store
    cache: StatCache
    locations: Mapping[str, Path]
    """As `read_locations` gives them."""
    unpacked_wheel: Callable[[str], Path]
    """The folder with the contents of a package's locked wheel."""
    on_progress: Callable[[str], None]

    @property
    def folder(self) -> Path:
        """The recipe's."""
        return self.workspace / self.recipe.folder


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """Pinned data, and where it is here."""

    locked: LockedData
    path: Path
    """A file where `locked.file` is set, else a folder."""
    in_place: bool
    """Not in the store: others may write to it."""
    signature: str | None = None
    """Of data in place, from before it was hashed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a source gave."""

    path: Path
    digest: Digest
    files: int
    bytes: int
    file: str | None
    resolved: str | None = None
    signature: str | None = None
    """Of data in place."""
    changed: _Paths | None = None
    """Paths that differ from what was expected, where that is known."""


class Source(Protocol):
    """One data table of one recipe."""

    fixed: ClassVar[bool]
    """Whether it gives an object of the store, which need not be fetched twice."""

    def find(self, expected: Digest | None) -> Found:
        """Fetch it or look it up. `expected` is what the lock says, None when locking.

        Raises SourceAbsentError; when locking, InvalidInputError for what the recipe got wrong.
        """
        ...


def resolve(name: str, data: Data, context: SourceContext) -> Resolved:
    """Pin one data table. Raises InvalidInputError, SourceAbsentError, DigestMismatchError."""
    found = _source(name, data, context).find(None)
    rows, columns = _shape(found)
    locked = LockedData(
        digest=found.digest,
        file=found.file,
        files=found.files,
        bytes=found.bytes,
        resolved=found.resolved,
        rows=rows,
        columns=columns,
    )
    return _resolved(locked, found)


def realise(
    name: str,
    data: Data,
    locked: LockedData,
    context: SourceContext,
    *,
    fetch: bool = True,
    paranoid: bool = False,
) -> Resolved:
    """Where the pinned content is. Without `fetch`, nothing is downloaded or unpacked.

    With `paranoid`, data in place is read again even where no status moved.

    Raises DigestMismatchError where there is other content now, SourceAbsentError where there
    is none.
    """
    source = _source(name, data, context)
    if source.fixed:
        stored = _stored(name, locked, context.store)
        if stored:
            if fetch:
                _check_stored(name, stored, context)
            return stored
        if not fetch:
            raise SourceAbsentError(f"data '{name}' of {context.recipe.path} is not in the store")
    found = source.find(locked.digest)
    if paranoid and found.signature is not None:
        found = replace(found, digest=_read_again(found.path))
    if (found.digest, found.file) != (locked.digest, locked.file):
        raise DigestMismatchError(
            f"digest mismatch in data '{name}' of {context.recipe.path}",
            facts=[("locked", str(locked.digest)), ("found", f"{found.digest}{_changed(found)}")],
            hint=f"If the change is intended: modelbuild lock --update {name}",
        )
    return _resolved(locked, found)


def check_unchanged(
    name: str, resolved: Resolved, context: SourceContext, *, paranoid: bool = False
) -> None:
    """Look again, after a stage, whether data in place is what was hashed before it.

    Every file's status must be the same; the contents are read again if `paranoid`, and where
    a file was so new that a second change could have left its status alone. Raises
    DigestMismatchError.
    """
    if not resolved.in_place:
        return
    path, locked = resolved.path, resolved.locked
    summary = f"data '{name}' of {context.recipe.path} changed while the stage ran"
    hint = "Build again when nothing writes to the data."
    if not exists(path):
        raise DigestMismatchError(summary, facts=[("missing", str(path))], hint=hint)
    now = context.cache.tree(path, keep=locked.digest)
    digest = now.digest
    if paranoid and digest == locked.digest:
        digest = _read_again(path)
    if digest != locked.digest:
        changed = _list_changed(context.cache.changes(path, locked.digest))
        facts = [("locked", str(locked.digest)), ("found", f"{digest}{changed}")]
        raise DigestMismatchError(summary, facts=facts, hint=hint)
    if now.signature != resolved.signature:
        facts = [("found", f"the same contents, but something was written below {path}")]
        raise DigestMismatchError(summary, facts=facts, hint=hint)


def _read_again(path: Path) -> Digest:
    return (scan_tree(path) if path.is_dir() else scan_file(path)).digest


def _source(name: str, data: Data, context: SourceContext) -> Source:
    # Imported here, so that a build with nothing to fetch does not load what fetches.
    match data:
        case PathData():
            from modelbuild.sources.paths import PathSource

            return PathSource(name, data, context)
        case LocationData():
            from modelbuild.sources.locations import LocationSource

            return LocationSource(name, data, context)
        case UrlData():
            from modelbuild.sources.urls import UrlSource

            return UrlSource(name, data, context)
        case PackageData():
            from modelbuild.sources.packages import PackageSource

            return PackageSource(name, data, context)
        case _:
            raise ValueError(f"data '{name}' is the output of a stage")


def exists(path: Path) -> bool:
    """Raises ModelbuildError where this user may not look."""
    with system_errors(os.fsencode(path)):
        return path.exists()


def use_in_place(path: Path, expected: Digest | None, context: SourceContext) -> Found:
    """The file or folder at `path`, where it is."""
    cached = context.cache.tree(path, keep=expected)
    changed = None
    if expected not in (None, cached.digest):
        changed = context.cache.changes(path, expected)
    return Found(
        path=path,
        digest=cached.digest,
        files=cached.files,
        bytes=cached.bytes,
        file=None if path.is_dir() else path.name,
        signature=cached.signature,
        changed=changed,
    )


def publish(
    folder: Path,
    name: str,
    context: SourceContext,
    *,
    file: str | None = None,
    resolved: str | None = None,
) -> Found:
    """Make a folder from `Store.temporary` a fixed output."""
    stored = context.store.publish(folder, name)
    return Found(
        path=stored.path / file if file else stored.path,
        digest=stored.tree.digest,
        files=stored.tree.files,
        bytes=stored.tree.bytes,
        file=file,
        resolved=resolved,
    )


def nearest(wanted: str, known: Sequence[str]) -> list[tuple[str, str]]:
    """A fact that names the known word which was probably meant."""
    from difflib import get_close_matches

    return [("nearest", word) for word in get_close_matches(wanted, known, n=1)]


def _stored(name: str, locked: LockedData, store: Store) -> Resolved | None:
    named = store.path(locked.digest, name)
    path = named if named.exists() else store.find(locked.digest)
    if path is None:
        return None
    return Resolved(locked=locked, path=path / locked.file if locked.file else path, in_place=False)


def _check_stored(name: str, stored: Resolved, context: SourceContext) -> None:
    """Before a stage reads it: an object of the store is what it was when it was stored."""
    path = stored.path.parent if stored.locked.file else stored.path
    found = context.cache.tree(path).digest
    if found != stored.locked.digest:
        raise DigestMismatchError(
            f"digest mismatch in the store: data '{name}' of {context.recipe.path} was altered",
            facts=[
                ("locked", str(stored.locked.digest)),
                ("found", str(found)),
                ("path", str(path)),
            ],
            hint="Remove that folder; the data is fetched again.",
        )


def _resolved(locked: LockedData, found: Found) -> Resolved:
    return Resolved(
        locked=locked,
        path=found.path,
        in_place=found.signature is not None,
        signature=found.signature,
    )


def _shape(found: Found) -> tuple[int | None, tuple[str, ...] | None]:
    """Rows and columns of a single file that is a table."""
    if found.file is None:
        return None, None
    from modelbuild.sources.tables import table_shape

    shape = table_shape(found.path)
    return (None, None) if shape is None else shape


def _changed(found: Found) -> str:
    return _list_changed(found.changed)


def _list_changed(paths: _Paths | None) -> str:
    if not paths:
        return ""
    names = [shown(path) for path in paths[:_NAMED]] + ["..."] * (len(paths) > _NAMED)
    count = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    return f"  ({count} changed: {', '.join(names)})"
