"""The parts of a glob: `*`, `?` and `[...]` within a name, `**` for folders."""

from __future__ import annotations

_WILDCARDS = frozenset("*?[")


def glob_parts(pattern: str) -> tuple[str, ...]:
    """Its folders and its last name, without `.` and empty parts. `**` at the end takes files."""
    parts = tuple(part for part in pattern.split("/") if part not in ("", "."))
    return (*parts, "*") if parts[-1:] == ("**",) else parts


def has_wildcard(text: str) -> bool:
    return not _WILDCARDS.isdisjoint(text)


def plain_parts(parts: tuple[str, ...]) -> int:
    """How many come before the first one with a wildcard."""
    return next((i for i, part in enumerate(parts) if has_wildcard(part)), len(parts))
