"""A virtual environment that is right at /build/env, made in another folder.

It holds nothing of the machine or the moment it was made on: two of them from the same wheels
and interpreter are the same trees.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from modelbuild.environment.host_python import LIBRARY_LINK
from modelbuild.environment.interpreter import PLACE as PYTHON_PLACE
from modelbuild.environment.interpreter import Interpreter
from modelbuild.spec.variables import BOOTSTRAP_LINE

PLACE = "/build/env"
"""Where the environment is in a sandbox."""


_OF_THE_INSTALLER = {"direct_url.json", "uv_cache.json", "uv_build.json"}
"""Files that uv adds to `.dist-info`, with times or paths of this machine in them."""


def make_skeleton(folder: Path, interpreter: Interpreter) -> Path:
    """A virtual environment without packages, as this machine can run it. Returns its Python."""
    (folder / "bin").mkdir(parents=True)
    site_packages(folder, interpreter).mkdir(parents=True)
    _write_config(folder, str(interpreter.path / "bin"), interpreter)
    python = folder / "bin" / "python"
    python.symlink_to(interpreter.executable)
    return python


def site_packages(folder: Path, interpreter: Interpreter) -> Path:
    return folder / "lib" / interpreter.executable.name / "site-packages"


def settle(folder: Path, interpreter: Interpreter) -> None:
    """Make a skeleton with packages right at /build/env, and nowhere else."""
    _write_config(folder, f"{PYTHON_PLACE}/bin", interpreter)
    _settle_python(folder / "bin", interpreter)
    (folder / ".lock").unlink(missing_ok=True)
    packages = site_packages(folder, interpreter)
    settle_packages(packages, folder / "bin", str(folder))
    (packages / "modelbuild.pth").write_text(f"{BOOTSTRAP_LINE}\n")


def settle_packages(packages: Path, scripts: Path, home: str) -> None:
    """Take what is of this machine out of installed packages and their scripts.

    `home` is the virtual environment whose Python the scripts name.
    """
    mended = {}
    for script in sorted(scripts.glob("*")):
        if script.is_file() and not script.is_symlink():
            content = script.read_bytes()
            new = with_interpreter(content, home, f"{PLACE}/bin/python")
            if new != content:
                replace(script, new)
                mended[os.path.relpath(script, packages)] = new
    for info in sorted(packages.glob("*.dist-info")):
        dropped = [file for file in sorted(info.iterdir()) if file.name in _OF_THE_INSTALLER]
        for file in dropped:
            file.unlink()
        _mend_record(info / "RECORD", mended, {f"{info.name}/{file.name}" for file in dropped})


def with_interpreter(script: bytes, home: str, python: str) -> bytes:
    """A script whose first line named a Python below `home`, with `python` in its place.

    For long paths and those with spaces, uv writes three lines of shell and Python instead.
    """
    lines = script.split(b"\n", 3)
    shebang = b"#!" + python.encode()
    if lines[0].startswith(b"#!" + home.encode()):
        return b"\n".join([shebang, *lines[1:]])
    if len(lines) == 4 and lines[0] == b"#!/bin/sh" and home.encode() in lines[1]:
        return b"\n".join([shebang, lines[3]])
    return script


def replace(file: Path, content: bytes) -> None:
    """Change a file on a fresh inode: the old one may belong to uv's cache as well."""
    mode = file.stat().st_mode
    file.unlink()
    file.write_bytes(content)
    file.chmod(mode)


def _write_config(folder: Path, home: str, interpreter: Interpreter) -> None:
    (folder / "pyvenv.cfg").write_text(
        f"home = {home}\ninclude-system-site-packages = false\nversion = {interpreter.version}\n"
    )


def _settle_python(scripts: Path, interpreter: Interpreter) -> None:
    """Give the environment an executable of its own: a link to /build/python would lead out."""
    python = scripts / "python"
    python.unlink()
    binary = interpreter.executable.read_bytes()
    relative = f"$ORIGIN/../{LIBRARY_LINK}".encode()
    absolute = f"{PYTHON_PLACE}/{LIBRARY_LINK}".encode()
    padding = b"\0" * (len(absolute) - len(relative) + 1)
    moved = binary.replace(relative + padding, absolute + b"\0")
    if moved == binary:
        python.hardlink_to(interpreter.executable)
    else:
        python.write_bytes(moved)
        python.chmod(0o755)
    for name in ("python3", interpreter.executable.name):
        (scripts / name).symlink_to("python")


def _mend_record(record: Path, mended: Mapping[str, bytes], dropped: Iterable[str]) -> None:
    rows = csv.reader(io.StringIO(record.read_text(encoding="utf-8")))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        if row and row[0] in mended:
            content = mended[row[0]]
            writer.writerow([row[0], f"sha256={record_digest(content)}", len(content)])
        elif row and row[0] not in dropped:
            writer.writerow(row)
    replace(record, text.getvalue().encode())


def record_digest(content: bytes) -> str:
    """A SHA-256 as RECORD files write it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
