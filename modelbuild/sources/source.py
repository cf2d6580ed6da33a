"""One kind of data: the protocol that its module implements, and what these share.

Data is used in place, where it already is a file or a folder of this machine, or it is a fixed
output: an object of the store, known by its digest before it is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeAlias

from modelbuild.errors import ModelbuildError
from modelbuild.spec.digest import Digest
from modelbuild.spec.recipe import Recipe
from modelbuild.store.stat_cache import StatCache
from modelbuild.store.store import Store
from modelbuild.store.tree import system_errors

_Paths: TypeAlias = Sequence[bytes]


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
