"""A recipe's data: pinned when it is locked, found for a build, looked at again after a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelbuild.errors import DigestMismatchError
from modelbuild.sources.source import Found, Source, SourceAbsentError, SourceContext, exists
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedData
from modelbuild.spec.recipe import Data, LocationData, PackageData, PathData, UrlData
from modelbuild.store.store import Store
from modelbuild.store.tree import scan_file, scan_tree, shown

_NAMED = 5
"""Changed files that a message names."""


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


def _list_changed(paths: Sequence[bytes] | None) -> str:
    if not paths:
        return ""
    names = [shown(path) for path in paths[:_NAMED]] + ["..."] * (len(paths) > _NAMED)
    count = "1 file" if len(paths) == 1 else f"{len(paths)} files"
    return f"  ({count} changed: {', '.join(names)})"
