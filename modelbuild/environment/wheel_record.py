"""Check installed files against the RECORD of the wheel that they came from.

uv checks a wheel's hash when it unpacks it into its cache. Every environment on the machine may
share the unpacked files by hard links, so that an edit in any of them is an edit in all.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

from modelbuild.environment.fetch import InstallOrder, install
from modelbuild.errors import DigestMismatchError, UnavailableError
from modelbuild.spec.lock import LockedWheel
from modelbuild.spec.package_names import normalised_name


def repair_changed(order: InstallOrder, packages: Path, on_progress: Callable[[str], None]) -> None:
    """Install packages whose files are not as their RECORD says again, past uv's cache.

    What then comes is taken as it is: it was unpacked from the locked bytes a moment ago, and
    some wheels have a wrong RECORD. Raises DigestMismatchError where that can't be done.
    """
    changed = changed_files(packages)
    for wheel in order.wheels:
        file = changed.get(wheel.name)
        if file is None:
            continue
        on_progress(f"{wheel.name}: {file} is not as in the wheel; unpacking it again")
        again = InstallOrder(
            environment=order.environment,
            wheels=[wheel],
            target=order.target,
            work=order.work,
        )
        try:
            install(again, on_progress, "--no-cache", "--reinstall")
        except UnavailableError as error:
            raise _cache_was_changed(wheel, file) from error


def changed_files(packages: Path) -> dict[str, str]:
    """By normalised package name, the first file that is not as recorded."""
    from concurrent.futures import ThreadPoolExecutor

    rows = [
        (normalised_name(info.name.split("-")[0]), path, wanted)
        for info in sorted(packages.glob("*.dist-info"))
        for path, wanted in _recorded(info / "RECORD")
    ]
    with ThreadPoolExecutor() as threads:
        same = threads.map(lambda row: _is_as_recorded(packages / row[1], row[2]), rows)
        bad = [(name, path) for (name, path, _), ok in zip(rows, same, strict=True) if not ok]
    return dict(reversed(bad))


def _recorded(record: Path) -> Iterator[tuple[str, str]]:
    for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"))):
        if len(row) >= 2 and row[1].startswith("sha256="):
            yield row[0], row[1].removeprefix("sha256=")


def _is_as_recorded(file: Path, wanted: str) -> bool:
    import hashlib
    from base64 import urlsafe_b64encode

    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").digest()
    except FileNotFoundError:
        return False
    return urlsafe_b64encode(digest).rstrip(b"=").decode() == wanted.rstrip("=")


def _cache_was_changed(wheel: LockedWheel, file: str) -> DigestMismatchError:
    return DigestMismatchError(
        f"uv's cache holds changed files of {wheel.name} {wheel.version}",
        facts=[("first", file), ("wanted", f"as in {wheel.filename}")],
        hint=f"To have them fetched again: uv cache clean {wheel.name}",
    )
