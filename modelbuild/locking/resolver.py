"""What a resolver is asked, and what it answers: the words that uv and pip-tools share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Requirements to resolve for a target, which need not be this machine."""

    requires: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    python: str
    """Exact version of CPython."""
    platform: str
    """As in the recipe: `x86_64-manylinux_2_28`."""
    pins: Mapping[str, str] = field(default_factory=dict)
    """Versions by name to keep where the requirements allow it."""
    from_source: tuple[str, ...] = ()
    """Normalised names of packages to take as sdists; all others are wheels."""
    exclude_newer: str | None = None
    base: Mapping[str, str] = field(default_factory=dict)
    """URLs by name: stand-ins for the distributions of a base interpreter, which are taken as
    they are wherever something requires them."""
    torch_backend: str | None = None
    """Take torch and its kin from PyTorch's index of this backend; only uv can."""

    @property
    def python_minor(self) -> str:
        return ".".join(self.python.split(".")[:2])


@dataclass(frozen=True, kw_only=True, slots=True)
class OfferedFile:
    """One file of a release, as an index or a folder offers it."""

    url: str
    """http, https or file; without credentials."""
    filename: str
    sha256: str | None
    bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One package at the version that was chosen, with the files that may fit the target."""

    name: str
    """Normalised."""
    version: str
    """For a distribution of the base interpreter, its own."""
    files: tuple[OfferedFile, ...]
