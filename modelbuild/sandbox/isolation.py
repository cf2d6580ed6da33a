"""What every isolation level takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from modelbuild.sandbox.gpus import Gpu


class Isolation(StrEnum):
    FULL = "full"
    NONE = "none"

    def satisfies(self, asked: Isolation) -> bool:
        """Whether what was made at this level may serve a request for `asked`."""
        return self is Isolation.FULL or asked is Isolation.NONE


@dataclass(frozen=True, kw_only=True, slots=True)
class Mounts:
    """What a stage sees, host path by place. Everything is read-only but `out` and
    `trace`."""

    src: Path
    """Snapshot of the stage's code, at /build/src, which is the working folder."""
    environment: Path
    """At /build/env."""
    interpreter: Path
    """At /build/python."""
    runtime: Path
    """The bootstrap's folder, at /build/runtime."""
    out: Path
    """An empty folder, at /build/out."""
    trace: Path
    """At /build/trace: what to record of a training, and what was recorded."""
    context: Path
    """A JSON file with what the stage was given, at /build/context.json."""
    data: Mapping[str, Path] = field(default_factory=dict)
    """Below /build/data: `NAME` for a folder, `NAME/FILE` for a single file."""
    stages: Mapping[str, Path] = field(default_factory=dict)
    """Below /build/stages: the outputs of upstream stages."""
    whole_system: bool = False
    """The host's /usr/local, GPU libraries and loader's cache as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What runs in the sandbox.

    In `argv` and in the values of `environment`, paths are those inside (`/build/...`); an
    isolation level that can't offer those paths rewrites them.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    """The whole of it: nothing is inherited."""
    threads: int
    """Processors that each of its processes is told it has."""
    processes: int = 1
    """How many it starts that have so many each."""
    gpus: Sequence[Gpu] = ()
    """Those it may use; it finds no others."""
    interactive: bool = False
    """Connect the terminal instead of `on_output`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a command ended, and what its whole process tree used."""

    exit_code: int
    """Negative: ended by that signal."""
    wall_seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    left_running: Sequence[str] = ()
    """Command lines of processes that were still there when the command ended; now killed."""
    address_randomisation_off: bool = False


class Sandbox(Protocol):
    """One isolation level."""

    @property
    def isolation(self) -> Isolation: ...

    def check(self) -> None:
        """Raise UnavailableError where the isolation can't be had. Takes milliseconds."""
        ...

    def free_port(self) -> int:
        """Where the processes of one stage can meet; the same one wherever that can be had."""
        ...

    def run(self, mounts: Mounts, command: Command, on_output: Callable[[bytes], None]) -> Outcome:
        """Run to the end. `on_output` gets stdout and stderr, as they come, in one stream.

        Raises UnavailableError where the isolation can't be had. KeyboardInterrupt kills the
        whole tree before it goes on.
        """
        ...
