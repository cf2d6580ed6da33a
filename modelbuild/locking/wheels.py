"""Which file of a release is locked: the wheel that fits the declared target best."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelbuild.errors import InvalidInputError
from modelbuild.locking.resolver import OfferedFile, Question, Release
from modelbuild.locking.uv import NoWheelError

if TYPE_CHECKING:
    from packaging.tags import Tag

_PLATFORM = re.compile(r"(x86_64|aarch64)-manylinux(?:_2_(\d+)|2014)")
_OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}
"""Minor versions of glibc 2 for which PEP 600 and its forerunners have tags."""
_FORERUNNERS = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


def architecture(platform: str) -> str:
    return platform.partition("-")[0]


def platform_tags(platform: str) -> tuple[str, ...]:
    """The platform tags that a target takes, best first. Raises InvalidInputError."""
    match = _PLATFORM.fullmatch(platform)
    if match is None:
        raise InvalidInputError(
            "[environment] platform is not one that modelbuild can lock for",
            facts=[
                ("wanted", "x86_64-manylinux_2_N or aarch64-manylinux_2_N, N a version of glibc"),
                ("found", platform),
            ],
        )
    machine, newest = match[1], int(match[2] or 17)
    tags = []
    for minor in range(newest, _OLDEST_GLIBC[machine] - 1, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        if minor in _FORERUNNERS:
            tags.append(f"{_FORERUNNERS[minor]}_{machine}")
    return (*tags, f"linux_{machine}")


def target_tags(question: Question) -> tuple[Tag, ...]:
    """All tags of wheels that the target takes, best first."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in question.python_minor.split("."))
    interpreter = f"cp{major}{minor}"
    platforms = platform_tags(question.platform)
    return (
        *cpython_tags((major, minor), [interpreter], platforms),
        *compatible_tags((major, minor), interpreter, platforms),
    )


def choose_file(release: Release, tags: Sequence[Tag], question: Question) -> OfferedFile:
    """The wheel whose tag comes first in `tags`; of several, the highest build number.

    Raises NoWheelError, which says what there is and which line of the recipe helps.
    """
    from packaging.utils import parse_wheel_filename

    if release.name in question.from_source:
        return next(f for f in release.files if not f.filename.endswith(".whl"))
    rank = {tag: position for position, tag in reversed(list(enumerate(tags)))}
    fitting = []
    for file in release.files:
        if file.filename.endswith(".whl"):
            _, _, build, file_tags = parse_wheel_filename(file.filename)
            best = min((rank[tag] for tag in file_tags if tag in rank), default=None)
            if best is not None:
                fitting.append((-best, build, file.filename, file))
    if not fitting:
        found = ", ".join(sorted(file.filename for file in release.files))
        raise NoWheelError(release.name, found, question)
    return max(fitting, key=lambda candidate: candidate[:3])[3]
