"""A folder that looks like /build, for isolation `none`: links to what namespaces would mount.

What has `/build` written into it is rewritten: the context, the environment's configuration, its
interpreter's links and its scripts' first lines.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelbuild.sandbox.isolation import Mounts
from modelbuild.sandbox.supervise import interpreter_binary, interrupts_held

_PLACE = re.compile(r"(?<![\w.\-/])/(build|tmp)(?![\w.\-])")
_ROOT = re.compile(r"(?<![\w.\-/])/build(?![\w.\-])")


class View:
    """The folder `root`, and how paths are told inside it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def inside(self, text: str) -> str:
        """`text` with `/build` replaced wherever a path begins with it."""
        return _ROOT.sub(lambda _: str(self.root), text)

    def inside_variable(self, value: str) -> str:
        """Likewise, and with `/tmp`, which is private too."""
        places = {"build": str(self.root), "tmp": str(self.root / "tmp")}
        return _PLACE.sub(lambda match: places[match[1]], value)


@contextmanager
def view_of(mounts: Mounts) -> Iterator[View]:
    """Made in the host's folder for temporary files, and removed with what a stage left in it."""
    view = View(Path(tempfile.mkdtemp(prefix="modelbuild-")))
    try:
        _fill(view, mounts)
        yield view
    finally:
        with interrupts_held():
            _remove(view.root)


def _fill(view: View, mounts: Mounts) -> None:
    root = view.root
    (root / "tmp").mkdir()
    links = {
        "src": mounts.src,
        "out": mounts.out,
        "trace": mounts.trace,
        "python": mounts.interpreter,
        "runtime": mounts.runtime,
    }
    links |= {f"data/{name}": path for name, path in mounts.data.items()}
    links |= {f"stages/{name}": path for name, path in mounts.stages.items()}
    for place, path in links.items():
        _link(root / place, path)
    context = json.loads(mounts.context.read_text())
    (root / "context.json").write_text(json.dumps(_rewritten(context, view)))
    _fill_environment(view, mounts)


def _link(place: Path, path: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(path.absolute())


def _rewritten(value: object, view: View) -> object:
    if isinstance(value, str):
        return view.inside(value)
    if isinstance(value, list):
        return [_rewritten(item, view) for item in value]
    if isinstance(value, dict):
        return {key: _rewritten(item, view) for key, item in value.items()}
    return value


def _fill_environment(view: View, mounts: Mounts) -> None:
    """Its libraries are linked, its `bin` and its configuration are made anew.

    Its own interpreter is made to find its library below /build only.
    """
    place, environment = view.root / "env", mounts.environment
    (place / "bin").mkdir(parents=True)
    for entry in environment.iterdir():
        if entry.name == "pyvenv.cfg":
            (place / entry.name).write_text(view.inside(entry.read_text()))
        elif entry.name != "bin":
            _link(place / entry.name, entry)
    binary = interpreter_binary(mounts.interpreter)
    for entry in (environment / "bin").iterdir():
        if re.fullmatch(r"python[\d.]*t?", entry.name):
            (place / "bin" / entry.name).symlink_to(view.root / "python" / "bin" / binary)
        else:
            _fill_program(view, entry, place / "bin" / entry.name)


def _fill_program(view: View, program: Path, place: Path) -> None:
    if program.is_symlink():
        place.symlink_to(view.inside(os.readlink(program)))
        return
    with program.open("rb") as stream:
        is_script = stream.read(2) == b"#!"
    if not is_script:
        _link(place, program)
        return
    text = program.read_bytes().decode(errors="surrogateescape")
    place.write_bytes(view.inside(text).encode(errors="surrogateescape"))
    place.chmod(0o755)


def _remove(root: Path) -> None:
    """Folders that a stage made unreadable included; links are never followed."""
    for folder, names, _ in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISDIR(os.lstat(path).st_mode):
                os.chmod(path, 0o700)
    shutil.rmtree(root)
