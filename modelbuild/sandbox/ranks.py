"""Read the end of a log that torchrun ended: which rank failed first, and what did it print?"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REPORT = re.compile(
    r"^[EW]\d{4} .* torch/distributed/elastic/multiprocessing/"
    r"|^torch\.distributed\.elastic\.multiprocessing\.errors\.ChildFailedError:",
    re.MULTILINE,
)
"""Where what torchrun itself says begins; what the ranks printed stands before it."""
_ROOT_CAUSE = re.compile(
    r"^Root Cause .*?^\s+rank\s+: (\d+) .*?^\s+exitcode\s+: (-?\d+) ", re.MULTILINE | re.DOTALL
)
_RAISED = re.compile(r"^\[rank(\d+)\]: Traceback", re.MULTILINE)
"""So torch marks tracebacks of a process that has joined the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankFailure:
    rank: int
    exit_code: int
    """Negative: ended by that signal."""
    printed: str
    """What it printed, so far as that can be told from what the others printed."""


def rank_failure(log: str) -> RankFailure | None:
    """The rank that failed first; None where this is not the log of torchrun.

    The others fail a moment later because it is gone, and torchrun, which looks ten times a
    second, may name one of them. So the first traceback counts where it came before any other
    rank was killed; a rank that was killed by a signal prints none.
    """
    report, causes = _REPORT.search(log), _ROOT_CAUSE.findall(log)
    if report is None or not causes:
        return None
    rank, exit_code = map(int, causes[-1])
    printed = log[: report.start()]
    first = _RAISED.search(printed)
    if first and exit_code > 0:
        rank = int(first[1])
    own = [line for line in printed.splitlines() if line.startswith(f"[rank{rank}]:")]
    return RankFailure(
        rank=rank, exit_code=exit_code, printed="\n".join(own) if own else printed.strip("\n")
    )
