"""The bootstraps that this installation ships, by version and digest.

A lock pins one, such as `1 b3:...`; only `modelbuild lock --update runtime` moves it.
"""

from __future__ import annotations

from pathlib import Path

from modelbuild.errors import OutOfDateError
from modelbuild.spec.canonical import Json, canonical_digest
from modelbuild.spec.digest import Digest

_FOLDER = Path(__file__).parent.parent / "runtime"
CURRENT = "1"
WITHOUT_PRELOAD = (
    "random bytes and processors that compiled code asks the system for are not pinned"
)
"""What is to be said where the library of preload.c is absent."""


def current_runtime() -> str:
    """What a new lock pins."""
    return _describe(CURRENT)


def runtime_folder(locked: str) -> Path:
    """The folder of a locked bootstrap, to mount at /build/runtime."""
    version = locked.partition(" ")[0]
    if not (_FOLDER / f"v{version}").is_dir():
        raise OutOfDateError(
            f"the lock pins version {version} of the bootstrap, which is not in this modelbuild",
            hint="Update modelbuild, or move the lock: modelbuild lock --update runtime",
        )
    shipped = _describe(version)
    if shipped != locked:
        raise OutOfDateError(
            "the bootstrap of this modelbuild is not the one in the lock",
            facts=[("locked", locked), ("found", shipped)],
            hint="To move the lock to the one found: modelbuild lock --update runtime",
        )
    return _FOLDER / f"v{version}"


def runtime_files(version: str = CURRENT) -> list[Path]:
    folder = _FOLDER / f"v{version}"
    return sorted([*folder.glob("*.py"), *folder.glob("*.c")])


def preload_library(runtime: Path | None = None) -> Path:
    """Where the build of this package puts what it makes of preload.c, if it finds a compiler.

    The name tells from which source: what was built from another one counts as absent.
    """
    from hashlib import sha256

    runtime = runtime or _FOLDER / f"v{CURRENT}"
    source = (runtime / "preload.c").read_bytes()
    return runtime / f"preload-{sha256(source).hexdigest()[:16]}.so"


def _describe(version: str) -> str:
    files: dict[str, Json] = {
        path.name: str(Digest.of(path.read_bytes())) for path in runtime_files(version)
    }
    return f"{version} {canonical_digest(files)}"
