"""Isolation `full`: Linux namespaces, by bubblewrap."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from modelbuild.sandbox.connection import Pipe, connect
from modelbuild.sandbox.devices import BASIC, protection
from modelbuild.sandbox.gpus import Gpu
from modelbuild.sandbox.host_system import driver_devices, driver_variables, system
from modelbuild.sandbox.isolation import Command, Isolation, Mounts, Outcome
from modelbuild.sandbox.namespaces import NAMESPACES, check_namespaces, refusal, required_bwrap
from modelbuild.sandbox.shipped_runtime import preload_library
from modelbuild.sandbox.supervise import (
    Launch,
    NotStartedError,
    first_process,
    interpreter_binary,
    supervise,
)
from modelbuild.sandbox.synthetic_files import synthetic_files
from modelbuild.spec.processes import MASTER_PORT

if TYPE_CHECKING:
    from subprocess import Popen

ROOT = "/build"


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bubblewrap:
    """Runs commands in namespaces of their own, or not at all."""

    temporary_bytes: int | None = None
    """Bound of /tmp, which lies in memory; None: a quarter of the machine's."""
    shared_memory_bytes: int | None = None
    """Bound of /dev/shm, where data loaders pass batches; None: half of the machine's memory."""

    @property
    def isolation(self) -> Isolation:
        return Isolation.FULL

    def check(self) -> None:
        check_namespaces(required_bwrap())

    def free_port(self) -> int:
        return MASTER_PORT  # a stage has a loopback of its own

    def run(self, mounts: Mounts, command: Command, on_output: Callable[[bytes], None]) -> Outcome:
        bwrap = required_bwrap()
        variables = {**driver_variables(command.gpus), **command.environment}
        command = replace(command, environment=variables)
        with (
            ExitStack() as open_pipes,
            closing(connect(command.interactive, on_output)) as connection,
        ):
            result = open_pipes.enter_context(Pipe())
            info = open_pipes.enter_context(Pipe())
            files = _filled(synthetic_files(command.threads) | _preloads(mounts), open_pipes)
            first = first_process(
                ROOT,
                interpreter_binary(mounts.interpreter),
                result,
                command,
                parent=0,
                terminal=connection.terminal,
            )
            arguments = [*NAMESPACES, "--info-fd", str(info.writer)]
            arguments += self._file_system(mounts, command.gpus, files)
            launch = Launch(
                argv=[str(bwrap), *arguments, "--chdir", f"{ROOT}/src", "--", *first],
                environment={},
                folder="/",
                pipes=(result, info),
                inputs=tuple(files.values()),
                kill=lambda process: _kill(process, info),
                before=protection([*BASIC, *driver_devices(command.gpus)]),
            )
            try:
                return supervise(launch, result, connection)
            except NotStartedError as error:
                raise refusal(error.output, bwrap) from None

    def _file_system(
        self, mounts: Mounts, gpus: Sequence[Gpu], files: dict[str, Pipe]
    ) -> list[str]:
        """Read-only all over, but for /build/out, /build/trace, /tmp and /dev/shm."""
        memory = _memory_bytes()
        temporary = self.temporary_bytes or memory // 4
        shared = self.shared_memory_bytes or memory // 2
        arguments = ["--proc", "/proc", "--dev", "/dev", *system(gpus, whole=mounts.whole_system)]
        for path, pipe in files.items():
            arguments += ["--perms", "0444", "--file", str(pipe.reader), path]
        arguments += [*_inputs(mounts), "--bind", str(mounts.out), f"{ROOT}/out"]
        arguments += ["--bind", str(mounts.trace), f"{ROOT}/trace"]
        arguments += ["--perms", "1777", "--size", str(temporary), "--tmpfs", "/tmp"]  # noqa: S108
        arguments += ["--perms", "1777", "--size", str(shared), "--tmpfs", "/dev/shm"]  # noqa: S108
        return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/"]


def _preloads(mounts: Mounts) -> dict[str, str]:
    """For the loader, in a file: a variable more would make the environment larger."""
    library = preload_library(mounts.runtime)
    if not library.exists():
        return {}
    return {"/etc/ld.so.preload": f"{ROOT}/runtime/{library.name}\n"}


def _inputs(mounts: Mounts) -> list[str]:
    places = {
        "src": mounts.src,
        "env": mounts.environment,
        "python": mounts.interpreter,
        "runtime": mounts.runtime,
        "context.json": mounts.context,
    }
    places |= {f"data/{name}": path for name, path in mounts.data.items()}
    places |= {f"stages/{name}": path for name, path in mounts.stages.items()}
    arguments = []
    for place, path in places.items():
        arguments += ["--ro-bind", str(path), f"{ROOT}/{place}"]
    return arguments


def _filled(files: dict[str, str], open_pipes: ExitStack) -> dict[str, Pipe]:
    """A pipe for each file, with its contents in it already: they are far below a pipe's size."""
    filled = {}
    for path, text in files.items():
        pipe = open_pipes.enter_context(Pipe())
        os.write(pipe.writer, text.encode())
        pipe.close_writer()
        filled[path] = pipe
    return filled


def _kill(process: Popen[bytes], info: Pipe) -> None:
    """Kill the first process, and with it the PID namespace.

    bwrap ends after it, when all is dead: were bwrap killed instead, nobody would know when.
    """
    said = info.read()
    if not said:  # bwrap ended, or was stopped, before it made a process
        process.kill()
        return
    try:
        os.kill(json.loads(said)["child-pid"], signal.SIGKILL)
    except ProcessLookupError:
        return
