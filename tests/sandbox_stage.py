"""A stage to run in a sandbox: the smallest interpreter, environment and folders that do."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modelbuild.environment.host_python import inspect, layout
from modelbuild.sandbox.isolation import Command, Mounts, Outcome, Sandbox

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "config-*")
RUNTIME = Path(__file__).parent.parent / "modelbuild" / "runtime" / "v1"
VARIABLES = {"PATH": "/build/env/bin:/usr/bin:/bin", "HOME": "/tmp"}


def make_interpreter(folder: Path) -> Path:
    """The running Python as modelbuild keeps it, but with its bytecode linked, not compiled."""
    tree = layout(inspect(Path(sys.executable)))
    program, binary = tree.executable
    (folder / "bin").mkdir(parents=True)
    (folder / program).write_bytes(binary)
    (folder / program).chmod(0o755)
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        folder / "lib" / VERSION,
        copy_function=_link,
        ignore=shutil.ignore_patterns(*LEFT_OUT),
    )
    for place, file in tree.files.items():
        if "/libpython" in place:
            shutil.copy2(file, folder / place)
    for place, target in tree.links.items():
        (folder / place).symlink_to(target)
    return folder


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def make_stage(folder: Path, interpreter: Path) -> Mounts:
    packages = folder / "env" / "lib" / VERSION / "site-packages"
    for place in (
        *(folder / name for name in ("src", "out", "trace")),
        folder / "env/bin",
        packages,
    ):
        place.mkdir(parents=True)
    (folder / "context.json").write_text('{"out": "/build/out", "lr": 0.1}')
    (folder / "env" / "bin" / "python").symlink_to(f"/build/python/bin/{VERSION}")
    (folder / "env" / "pyvenv.cfg").write_text("home = /build/python/bin\n")
    script = folder / "env" / "bin" / "greet"
    script.write_text("#!/build/env/bin/python\nimport sys\nprint('hello from', sys.prefix)\n")
    script.chmod(0o755)
    return Mounts(
        src=folder / "src",
        environment=folder / "env",
        interpreter=interpreter,
        runtime=RUNTIME,
        out=folder / "out",
        trace=folder / "trace",
        context=folder / "context.json",
    )


@dataclass(kw_only=True)
class Ran:
    outcome: Outcome
    output: str

    @property
    def exit_code(self) -> int:
        return self.outcome.exit_code


@dataclass(kw_only=True)
class StageRunner:
    """Runs commands in one sandbox with one set of mounts."""

    sandbox: Sandbox
    mounts: Mounts
    command: Command = field(
        default_factory=lambda: Command(argv=[], environment=VARIABLES, threads=1)
    )

    def run(self, *argv: str, **changed: Any) -> Ran:
        chunks: list[bytes] = []
        return Ran(
            outcome=self.stream(chunks.append, *argv, **changed),
            output=b"".join(chunks).decode(errors="replace"),
        )

    def stream(self, on_output: Callable[[bytes], None], *argv: str, **changed: Any) -> Outcome:
        command = replace(self.command, argv=argv, **changed)
        return self.sandbox.run(self.mounts, command, on_output)

    def python(self, code: str, *arguments: str, **changed: Any) -> Ran:
        return self.run("python", "-c", code, *arguments, **changed)
