"""Isolation `none`: no namespaces, for machines and containers that forbid them.

As near to `full` as can be: the same first process, cleared environment, limits, and no process
left. Network, host files and other processes can be reached, and a hostile stage can kill its
first process and stay. Results never become claims.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.errors import UnavailableError
from modelbuild.sandbox.connection import Pipe, connect
from modelbuild.sandbox.gpus import Gpu
from modelbuild.sandbox.host_system import driver_variables
from modelbuild.sandbox.isolation import Command, Isolation, Mounts, Outcome
from modelbuild.sandbox.shipped_runtime import preload_library
from modelbuild.sandbox.supervise import (
    Launch,
    NotStartedError,
    first_process,
    interpreter_binary,
    supervise,
)
from modelbuild.sandbox.view import View, view_of

if TYPE_CHECKING:
    from subprocess import Popen


class Unconfined:
    """Runs commands on the host itself, below a folder that stands for /build."""

    @property
    def isolation(self) -> Isolation:
        return Isolation.NONE

    def check(self) -> None:
        if sys.platform != "linux":
            raise UnavailableError(
                "stages run on Linux only",
                facts=[("found", sys.platform)],
                hint="What works here: modelbuild lock, modelbuild verify",
            )

    def free_port(self) -> int:
        """Another program may take it before the stage does; then the stage fails and says so."""
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        return port

    def run(self, mounts: Mounts, command: Command, on_output: Callable[[bytes], None]) -> Outcome:
        self.check()
        with (
            view_of(mounts) as view,
            Pipe() as result,
            closing(connect(command.interactive, on_output)) as connection,
        ):
            root = str(view.root)
            first = first_process(
                root,
                interpreter_binary(mounts.interpreter),
                result,
                _in_view(command, view, preload_library(mounts.runtime)),
                parent=os.getpid(),
                terminal=connection.terminal,
            )
            launch = Launch(
                argv=first,
                environment={},
                folder=f"{root}/src",
                pipes=(result,),
                kill=_kill,
            )
            try:
                return supervise(launch, result, connection)
            except NotStartedError as error:
                raise UnavailableError(
                    "the locked interpreter does not run on this machine",
                    facts=[("interpreter", str(mounts.interpreter)), ("it said", error.output)],
                ) from None


def _in_view(command: Command, view: View, preload: Path) -> Command:
    """The command with the view's paths, told where `/build` is."""
    environment = {name: view.inside_variable(value) for name, value in command.environment.items()}
    own = {"MODELBUILD_ROOT": str(view.root), "TMPDIR": str(view.root / "tmp")}
    if preload.exists():
        own["LD_PRELOAD"] = f"{view.root}/runtime/{preload.name}"
    return replace(
        command,
        argv=[view.inside(argument) for argument in command.argv],
        environment=own | _gpu_variables(command.gpus) | environment,
    )


def _gpu_variables(gpus: Sequence[Gpu]) -> dict[str, str]:
    """Device files can't be hidden here, but the driver honours these.

    A GPU's own name stays right where another program shows the driver fewer of them.
    """
    visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid or str(gpu.index) for gpu in gpus)}
    return visible | driver_variables(gpus)


def _kill(process: Popen[bytes]) -> None:
    """Have the first process kill everything; it ends when nothing is left."""
    for number in (signal.SIGUSR1, signal.SIGCONT):
        process.send_signal(number)
