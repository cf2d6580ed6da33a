"""The interpreter: found on this machine through uv, kept in the store, pinned by content."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelbuild.environment.host_python import (
    Installation,
    inspect,
    layout,
    layout_digest,
    write_layout,
)
from modelbuild.environment.indexes import uv_variables
from modelbuild.errors import ModelbuildError, UnavailableError
from modelbuild.spec.digest import Digest
from modelbuild.spec.logins import without_logins
from modelbuild.store.store import Store

PLACE = "/build/python"
"""Where the interpreter is in a sandbox."""

_SHOWN = 500
"""Of uv's words: it names every setting that it knows where it meets one that it doesn't."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPython:
    """A CPython of this machine."""

    version: str
    executable: Path
    digest: Digest
    """Of the tree that it becomes in the store, without bytecode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Interpreter:
    """A CPython in the store, ready to be mounted at /build/python."""

    version: str
    digest: Digest
    path: Path

    @property
    def executable(self) -> Path:
        return self.path / "bin" / ("python" + ".".join(self.version.split(".")[:2]))


def find_python(request: str) -> HostPython:
    """The CPython that uv finds for `3.11` or `3.11.7`. It is never downloaded.

    Raises UnavailableError, which says what installs it.
    """
    return _host_python(inspect(_first_choice(request)))


def ask_python(python: Path) -> HostPython:
    """The CPython at a path; for one of a virtual environment, the one that it was made from."""
    return _host_python(inspect(python))


def realise_interpreter(
    version: str, accepted: Collection[Digest], store: Store, base: Path | None = None
) -> Interpreter:
    """The interpreter as an object of the store.

    Any accepted one that is in the store serves, without a look at the host. Else it is copied
    from the host: from `base` alone where that is given. Raises UnavailableError where the host
    has no CPython of that version, or only builds of it that are not accepted.
    """
    name = f"cpython-{version}"
    for digest in sorted(accepted):
        path = store.path(digest, name)
        if path.exists():
            return Interpreter(version=version, digest=digest, path=path)
    refused: list[HostPython] = []
    for installation in [inspect(base)] if base else _installations(version):
        python = _host_python(installation)
        if python.digest in accepted:
            path = _copy(installation, python.digest, store.path(python.digest, name), store)
            return Interpreter(version=version, digest=python.digest, path=path)
        refused.append(python)
    raise _not_accepted(version, accepted, refused) if refused else _not_installed(version)


def _host_python(installation: Installation) -> HostPython:
    return HostPython(
        version=installation.version,
        executable=installation.executable,
        digest=layout_digest(layout(installation)),
    )


def _installations(version: str) -> Iterator[Installation]:
    """Those of exactly this version, uv's choice first; the others only where asked for."""
    seen = set()
    for python in _candidates(version):
        installation = inspect(python)
        if installation.version == version and installation.executable not in seen:
            seen.add(installation.executable)
            yield installation


def _candidates(version: str) -> Iterator[Path]:
    yield _first_choice(version)
    yield from (Path(row["path"]) for row in _listed() if row["version"] == version)


def _first_choice(request: str) -> Path:
    found = _uv_python("find", "--no-project", request)
    if found.returncode == 0:
        return Path(found.stdout.strip())
    if "No interpreter found" in found.stderr:
        raise _not_installed(request)
    raise _not_asked(request, found.stderr)


def _listed() -> list[dict[str, str]]:
    """What uv knows of the CPythons of this machine; slow, as it asks each."""
    listed = _uv_python("list", "--only-installed", "--output-format", "json")
    rows: list[dict[str, str]] = json.loads(listed.stdout) if listed.returncode == 0 else []
    return [row for row in rows if row.get("implementation") == "cpython" and row.get("path")]


def _uv_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    from uv import find_uv_bin

    # uv warns of every other Python that it can't ask; only what it found counts here.
    return subprocess.run(
        [find_uv_bin(), "python", *arguments, "--no-python-downloads"],
        env=uv_variables(),
        capture_output=True,
        text=True,
        check=False,
    )


def _copy(installation: Installation, digest: Digest, path: Path, store: Store) -> Path:
    """Publish the interpreter's tree with bytecode, under the digest of the tree without."""
    from modelbuild.environment.bytecode import compile_bytecode
    from modelbuild.environment.fingerprint import write_fingerprint
    from modelbuild.store.tree import scan_tree

    def nobody_is_told(holder: str) -> None:
        pass

    with store.lock(f"interpreter-{digest.store_key}", nobody_is_told):
        if path.exists():
            return path
        with store.temporary("interpreter") as work:
            folder = work / "python"
            write_layout(layout(installation), folder)
            if scan_tree(folder).digest != digest:
                raise ModelbuildError(f"changed while it was copied: {installation.prefix}")
            executable = folder / "bin" / installation.name
            _check_copy(executable, installation)
            compile_bytecode(folder, PLACE, executable)
            write_fingerprint(folder, path)
            return store.publish(folder, path.name.split("-", 1)[1], key=digest).path


def _check_copy(executable: Path, installation: Installation) -> None:
    """Run the copy: that it is the version it should be, from its own folder alone."""
    copied = inspect(executable)
    folder = executable.parent.parent
    strangers = [
        str(file) for file in (copied.stdlib, *copied.libraries) if not file.is_relative_to(folder)
    ]
    if copied.version != installation.version or strangers:
        raise UnavailableError(
            f"a copy of {installation.executable} does not run on its own",
            facts=[
                ("wanted", f"CPython {installation.version}"),
                ("found", f"CPython {copied.version}"),
                ("uses", "\n".join(strangers) or "nothing else"),
            ],
            hint=_install_hint(installation.version),
        )


def _not_accepted(
    version: str, accepted: Collection[Digest], refused: list[HostPython]
) -> UnavailableError:
    return UnavailableError(
        f"this machine's CPython {version} is not a build that the lock accepts",
        facts=[
            ("wanted", "\n".join(map(str, sorted(accepted))) or "none is accepted yet"),
            ("found", "\n".join(f"{each.digest}  ({each.executable})" for each in refused)),
        ],
        hint="To accept this build of Python: modelbuild lock --update python",
    )


def _not_installed(request: str) -> UnavailableError:
    found = sorted({row["version"] for row in _listed()})
    return UnavailableError(
        f"CPython {request} is not installed",
        facts=[("wanted", request), ("found", ", ".join(found) or "no CPython that uv can see")],
        hint=_install_hint(request),
    )


def _not_asked(request: str, said: str) -> UnavailableError:
    """For what keeps uv from looking, and for a Python first in its way that does not run."""
    words = without_logins(said[max(0, said.find("error:")) :]).strip()
    return UnavailableError(
        f"uv can't look for CPython {request}",
        facts=[("uv says", words if len(words) <= _SHOWN else f"{words[:_SHOWN]}...")],
        hint=_install_hint(request) if "Failed to inspect" in words else None,
    )


def _install_hint(version: str) -> str:
    return f"To install it: uv python install {version}"
