"""The command of a stage of several processes: torchrun starts them, all on this machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

MASTER_PORT = 29500
"""Where the processes meet: the port that torchrun itself takes. A stage has a network of its own
at isolation `full`, so that it is always free there."""

_PYTHON = re.compile(r"python(3(\.\d+)?)?")


def launched(run: Sequence[str], processes: int, port: int = MASTER_PORT) -> tuple[str, ...]:
    """`run` as torchrun starts it `processes` times; for one process as it is.

    Nothing is started again after a failure. Raises ValueError for a command that is not
    `python SCRIPT` or `python -m MODULE`, and says what it is.
    """
    if processes == 1:
        return tuple(run)
    program, *arguments = run
    if not _PYTHON.fullmatch(PurePosixPath(program).name):
        raise ValueError(f"a command that is not Python: {program}")
    if arguments[:1] == ["-u"]:  # torchrun itself starts its processes so
        arguments = arguments[1:]
    script = arguments[1] if arguments[:1] == ["-m"] and len(arguments) > 1 else None
    if script is None and (not arguments or arguments[0].startswith("-")):
        raise ValueError(f"Python without a script: {' '.join(run)}")
    if script in ("torch.distributed.run", "torch.distributed.launch"):
        raise ValueError(f"a command that starts processes itself: {' '.join(run[:3])}")
    return (
        *(program, "-m", "torch.distributed.run"),
        *("--nnodes", "1", "--nproc-per-node", str(processes), "--max-restarts", "0"),
        *("--master-addr", "127.0.0.1", "--master-port", str(port)),
        *arguments,
    )
