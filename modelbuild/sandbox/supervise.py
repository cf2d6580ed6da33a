"""Start a stage's first process in some sandbox, stream its output, take its result."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.connection import Connection, Pipe
from modelbuild.sandbox.isolation import Command, Outcome
from modelbuild.sandbox.processors import chosen_processors

if TYPE_CHECKING:
    from subprocess import Popen

    Kill: TypeAlias = Callable[[Popen[bytes]], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """What is to be started."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: str
    """The working folder."""
    pipes: Sequence[Pipe]
    """Whose writers are passed on; this side's copies are closed once it runs."""
    inputs: Sequence[Pipe] = ()
    """Likewise, whose readers are passed on."""
    kill: Kill
    """Ends the whole tree, from any state, at once."""
    before: Callable[[], None] | None = None
    """Called in the new process, before it becomes `argv`."""


class NotStartedError(Exception):
    """The sandbox did not come up; `output` is what it had to say."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


def supervise(launch: Launch, result: Pipe, connection: Connection) -> Outcome:
    """Run to the end.

    1. Start it. It may neither be lost between fork and `try`, nor outlive this call.
    2. Wait for the first process's word that the sandbox stands.
    3. Stream, until the last process has closed its output.
    4. Take the result. Without one the first process was killed: never a success.

    Raises NotStartedError, and whatever interrupts it once the whole tree is dead.
    """
    began = time.monotonic()
    process: Popen[bytes] | None = None
    try:
        with interrupts_held():
            process = _start(launch, connection)
        if not os.read(result.reader, 1):
            raise NotStartedError(connection.rest().decode(errors="replace").strip())
        connection.pump()
        said = result.read()
        process.wait()
    finally:
        if process is not None and process.poll() is None:
            with interrupts_held():
                launch.kill(process)
                process.wait()
    return _outcome(said, time.monotonic() - began)


def _start(launch: Launch, connection: Connection) -> Popen[bytes]:
    import subprocess

    inherited = [pipe.writer for pipe in launch.pipes] + [pipe.reader for pipe in launch.inputs]
    process = subprocess.Popen(
        launch.argv,
        env=launch.environment,
        cwd=launch.folder,
        stdin=connection.stdin,
        stdout=connection.stdout,
        stderr=connection.stdout,
        pass_fds=inherited,
        preexec_fn=launch.before,
        start_new_session=True,
    )
    for pipe in launch.pipes:
        pipe.close_writer()
    for pipe in launch.inputs:
        pipe.close_reader()
    connection.started()
    return process


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outcome(said: bytes, seconds: float) -> Outcome:
    if not said:
        return Outcome(
            exit_code=-signal.SIGKILL, wall_seconds=seconds, cpu_seconds=0.0, peak_memory_bytes=0
        )
    result = json.loads(said)
    if foreign := result.pop("foreign_libraries", None):
        raise UnavailableError(
            "the locked interpreter runs with another Python's library",
            facts=[
                ("wanted", "libpython of the locked interpreter"),
                ("found", ", ".join(foreign)),
            ],
            hint="A standalone build has no such library: uv python install",
        )
    result["left_running"] = tuple(result["left_running"])
    return Outcome(**result)


def first_process(
    root: str, binary: str, result: Pipe, command: Command, *, parent: int, terminal: bool
) -> list[str]:
    """The command line of init.py, which starts `command`; `root` is where `/build` is."""
    environment = [f"{name}={value}" for name, value in command.environment.items()]
    return [
        f"{root}/python/bin/{binary}",
        *("-I", "-S", "-B", f"{root}/runtime/init.py"),
        str(result.writer),
        str(parent),
        ",".join(map(str, chosen_processors(command.threads * command.processes))),
        "terminal" if terminal else "no terminal",
        str(len(environment)),
        *environment,
        *command.argv,
    ]


def interpreter_binary(interpreter: Path) -> str:
    """The name of the interpreter's program: `python3.11`."""
    folder = interpreter / "bin"
    names = sorted(name for name in os.listdir(folder) if re.fullmatch(r"python3\.\d+t?", name))
    if not names:
        raise UnavailableError(
            f"no interpreter in {folder}", facts=[("wanted", "python3.X"), ("found", "none")]
        )
    return names[0]
