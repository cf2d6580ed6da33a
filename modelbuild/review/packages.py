"""What changed between two sets of locked packages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from modelbuild.spec.lock import LockedWheel


@dataclass(frozen=True, kw_only=True, slots=True)
class PackageChange:
    name: str
    kind: str
    """`added`, `removed`, `up`, `down`, `moved` (no order between the two versions), `other file`
    or `other bytes`."""
    old: LockedWheel | None
    new: LockedWheel | None

    @property
    def other_bytes(self) -> bool:
        return self.kind == "other bytes"

    @property
    def other_licence(self) -> bool:
        """Whether what the package says of its licence moved."""
        return bool(self.old and self.new and self.old.licence != self.new.licence)


def compare_packages(
    old: Iterable[LockedWheel], new: Iterable[LockedWheel]
) -> tuple[PackageChange, ...]:
    """What is not the same file on both sides, by name."""
    before = {wheel.name: wheel for wheel in old}
    after = {wheel.name: wheel for wheel in new}
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


def _kind(old: LockedWheel | None, new: LockedWheel | None) -> str:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if old.version == new.version:
        same_name = old.filename == new.filename and old.sha256 != new.sha256
        return "other bytes" if same_name else "other file"
    from packaging.version import InvalidVersion, Version

    try:
        return "up" if Version(new.version) > Version(old.version) else "down"
    except InvalidVersion:
        return "moved"
