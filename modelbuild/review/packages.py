"""What changed between two sets of locked packages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelbuild.spec.lock import LockedDistribution, LockedEnvironment, LockedWheel

Package = LockedWheel | LockedDistribution


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageChange:
    name: str
    kind: str
    """`added`, `removed`, `up`, `down`, `moved` (no order between the two versions), `other file`
    or `other bytes`."""
    old: Package | None
    new: Package | None

    @property
    def other_bytes(self) -> bool:
        return self.kind == "other bytes"

    @property
    def other_licence(self) -> bool:
        """Whether what the package says of its licence moved."""
        return bool(self.old and self.new and self.old.licence != self.new.licence)


def compare_packages(
    old: LockedEnvironment | None, new: LockedEnvironment | None
) -> tuple[PackageChange, ...]:
    """What is not the same file, or distribution of a base interpreter, on both sides."""
    before = {each.name: each for each in _packages(old)}
    after = {each.name: each for each in _packages(new)}
    return tuple(
        PackageChange(
            name=name,
            kind=_kind(before.get(name), after.get(name)),
            old=before.get(name),
            new=after.get(name),
        )
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


def _packages(environment: LockedEnvironment | None) -> Iterable[Package]:
    return (*environment.wheels, *environment.distributions) if environment else ()


def _kind(old: Package | None, new: Package | None) -> str:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old.version == new.version:
        if isinstance(old, LockedWheel) and isinstance(new, LockedWheel):
            same_name = old.filename == new.filename and old.sha256 != new.sha256
            return "other bytes" if same_name else "other file"
        return "other file"
    from packaging.version import InvalidVersion, Version

    try:
        return "up" if Version(new.version) > Version(old.version) else "down"
    except InvalidVersion:
        return "moved"
