"""A Python of this machine, as it looks at its fixed place in a sandbox.

Only what decides how programs run is taken: the executable, the libraries it brings along, the
standard library and the headers. Not taken are bytecode (made anew), what the machine's owner
installed into it, tests, editors and static libraries.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import ModelbuildError
from modelbuild.spec.digest import Digest
from modelbuild.store.tree import EXECUTABLE, FILE, LINK, Entry, tree_digest

LIBRARY_LINK = "py.so"
"""At the top of the tree, a link to the shared library of a shared build. The name is this short
because `/build/python/py.so` has to fit where `libpython3.9.so.1.0` stood."""

_LEFT_OUT_AT_TOP = {"site-packages", "dist-packages", "idlelib", "turtledemo"}
_LEFT_OUT = {"__pycache__", "test", "tests", "sitecustomize.py", "usercustomize.py"}
_LEFT_OUT_SUFFIXES = {".pyc", ".a", ".o", ".pickle"}  # lib2to3 writes its pickles when it runs

_PROBE = """
import importlib, json, os, sys, sysconfig
stdlib = os.path.dirname(os.__file__)
dynload = os.path.join(stdlib, "lib-dynload")
for file in sorted(os.listdir(dynload)) if os.path.isdir(dynload) else []:
    try:
        importlib.import_module(file.split(".")[0])
    except BaseException:
        pass
mapped = set()
if os.path.exists("/proc/self/maps"):
    mapped = {line.rstrip().split(maxsplit=5)[-1] for line in open("/proc/self/maps")}
print(json.dumps({
    "version": ".".join(map(str, sys.version_info[:3])),
    "executable": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
    "prefix": sys.base_prefix,
    "stdlib": stdlib,
    "include": sysconfig.get_path("include", vars={"installed_base": sys.base_prefix}),
    "libraries": sorted(file for file in mapped if ".so" in os.path.basename(file)),
}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Installation:
    """Where the parts of one installed Python are."""

    version: str
    executable: Path
    stdlib: Path
    include: Path
    libraries: tuple[Path, ...]
    """Shared libraries that it brings along, with the links to them."""
    prefix: Path

    @property
    def name(self) -> str:
        """`python3.11`: of the executable and of the folders."""
        return "python" + ".".join(self.version.split(".")[:2])


@dataclass(frozen=True, slots=True)
class Layout:
    """The tree in the sandbox: what each path in it is made of."""

    files: Mapping[str, Path]
    links: Mapping[str, str]
    executable: tuple[str, bytes]


def inspect(python: Path) -> Installation:
    """Ask an interpreter, also one of a virtual environment, for its installation's parts."""
    command = [str(python), "-I", "-S", "-c", _PROBE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode != 0:
        raise ModelbuildError(
            f"{python} does not run",
            facts=[("found", done.stderr.strip() or f"exit code {done.returncode}")],
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    prefix, stdlib = Path(answer["prefix"]), Path(answer["stdlib"])
    return Installation(
        version=answer["version"],
        executable=Path(answer["executable"]),
        stdlib=stdlib,
        include=Path(answer["include"]),
        libraries=_own_libraries([Path(file) for file in answer["libraries"]], prefix, stdlib),
        prefix=prefix,
    )


def layout(python: Installation) -> Layout:
    """The tree that `python` becomes."""
    name, lib = python.name, python.stdlib.parent.name
    files = {f"{lib}/{name}/{path}": file for path, file in _standard_library(python.stdlib)}
    for path, file in _files(python.include):
        files[f"include/{name}/{path}"] = file
    links = {"bin/python": name, "bin/python3": name}
    if lib != "lib":
        links["lib"] = lib
    for library in python.libraries:
        if library.is_symlink():
            links[f"{lib}/{library.name}"] = library.resolve().name
        else:
            files[f"{lib}/{library.name}"] = library
    binary = python.executable.read_bytes()
    soname = _needed_libpython(binary, python)
    if soname:
        links[LIBRARY_LINK] = f"{lib}/{soname}"
        binary = find_library_at(binary, f"$ORIGIN/../{LIBRARY_LINK}", soname)
    return Layout(files, links, (f"bin/{name}", binary))


def find_library_at(executable: bytes, path: str, soname: str) -> bytes:
    """The executable of a shared build, changed to load libpython from `path` and nowhere else.

    Such a build finds its library by an absolute run path or by the loader's cache; moved to
    another place it would load another installation's, silently, and run as that version. A
    name with a slash is taken as it is, and it cannot be undone by the environment of a child
    process as LD_LIBRARY_PATH can. The name is replaced in place, so it must not be longer.
    """
    old, new = b"\0" + soname.encode() + b"\0", b"\0" + path.encode()
    if len(new) >= len(old) or executable.count(old) != 1:
        raise ModelbuildError(f"an executable that loads {soname} in a way not known here")
    return executable.replace(old, new.ljust(len(old), b"\0"))


def _needed_libpython(binary: bytes, python: Installation) -> str | None:
    names = [library.name for library in python.libraries if library.name.startswith("libpython")]
    return next((name for name in names if b"\0" + name.encode() + b"\0" in binary), None)


def _own_libraries(mapped: list[Path], prefix: Path, stdlib: Path) -> tuple[Path, ...]:
    """Of the libraries that were loaded, those that are not the operating system's.

    The sandbox shows the host's /usr, so below that only libpython itself counts as Python's.
    """
    own = {
        file
        for file in mapped
        if not file.is_relative_to(stdlib)
        and (
            file.name.startswith("libpython")
            or (file.is_relative_to(prefix) and prefix not in (Path("/usr"), Path("/")))
        )
    }
    with_links = {
        other
        for folder in {file.parent for file in own}
        for other in folder.glob("*.so*")
        if other.resolve() in own
    }
    return tuple(sorted(with_links))


def _standard_library(folder: Path) -> Iterator[tuple[str, Path]]:
    return _files(folder, kept_at_top=_is_of_standard_library)


def _is_of_standard_library(name: str) -> bool:
    return name not in _LEFT_OUT_AT_TOP and not name.startswith("config-")


def _files(
    folder: Path, kept_at_top: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, Path]]:
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        names = sorted(set(files) - _LEFT_OUT)
        if kept_at_top and parent == str(folder):  # site-packages is large: it is not walked
            folders[:] = filter(kept_at_top, folders)
            names = list(filter(kept_at_top, names))
        for name in names:
            file = Path(parent, name)
            # Links are followed: a distribution's may lead to /etc. Dangling ones are skipped.
            if file.suffix not in _LEFT_OUT_SUFFIXES and file.is_file():
                yield str(file.relative_to(folder)), file


def layout_digest(tree: Layout) -> Digest:
    """The digest of the tree, before it is made."""
    path, binary = tree.executable
    entries = [_entry(path, EXECUTABLE, binary)]
    for place, target in tree.links.items():
        entries.append(_entry(place, LINK, os.fsencode(target)))
    for place, file in tree.files.items():
        entries.append(_entry(place, EXECUTABLE if _runs(file) else FILE, file.read_bytes()))
    return tree_digest(entries)


def write_layout(tree: Layout, folder: Path) -> None:
    """Make the tree as the new folder `folder`.

    Not with the store's copies, which insist on an unchanged change time: other programs may
    make hard links to these files at any time. The result's digest is what counts.
    """
    path, binary = tree.executable
    _write(folder / path, binary, executable=True)
    for place, file in tree.files.items():
        _write(folder / place, file.read_bytes(), executable=_runs(file))
    for place, target in tree.links.items():
        (folder / place).symlink_to(target)


def _entry(place: str, kind: str, content: bytes) -> Entry:
    from blake3 import blake3

    return Entry(os.fsencode(place), kind, blake3(content).hexdigest(), len(content))


def _runs(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o100)


def _write(target: Path, content: bytes, *, executable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    target.chmod(0o755 if executable else 0o644)
