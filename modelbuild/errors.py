"""What can go wrong, one class an exit code.

Every message says what, where, what was wanted, what was found and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class ModelbuildError(Exception):
    """An error stated in one message, never a traceback.

    `summary` says what and where; `facts` are (label, value) pairs, shown aligned below it;
    `hint` says what to do next.
    """

    exit_code = 1

    def __init__(
        self, summary: str, *, facts: Sequence[tuple[str, str]] = (), hint: str | None = None
    ) -> None:
        super().__init__(summary)
        self.summary = summary
        self.facts = tuple(facts)
        self.hint = hint

    def __str__(self) -> str:
        width = max((len(label) for label, _ in self.facts), default=0) + 1
        lines = [self.summary]
        for label, value in self.facts:
            first, *rest = value.splitlines() or [""]
            lines.append(f"  {label + ':':<{width}} {first}")
            lines += [f"  {'':<{width}} {line}" for line in rest]
        if self.hint:
            lines.append(self.hint)
        return "\n".join(lines)


class UsageError(ModelbuildError):
    """The command line is wrong."""

    exit_code = 2


class InvalidInputError(ModelbuildError):
    """The recipe or the lock is invalid."""

    exit_code = 3


class OutOfDateError(ModelbuildError):
    """The lock is out of date, or a claim is missing."""

    exit_code = 4


class DigestMismatchError(ModelbuildError):
    """Content does not match its digest: data, wheel, store or cache."""

    exit_code = 5


class StageFailedError(ModelbuildError):
    """A stage's command failed, or did not deliver what it declared."""

    exit_code = 6


class NotReproducibleError(ModelbuildError):
    """Built again on the same numeric class, it came out different."""

    exit_code = 7


class UnavailableError(ModelbuildError):
    """The declared hardware, target or isolation can't be had here."""

    exit_code = 8


class CommandFailedError(ModelbuildError):
    """A command that was to be observed failed. The exit code is the command's."""

    def __init__(self, summary: str, exit_code: int) -> None:
        super().__init__(summary, hint="Nothing was written. It must end with 0 to be observed.")
        self.exit_code = exit_code


INTERRUPTED = 130
"""The exit code after Ctrl-C: the store is valid and nothing is left behind."""

_SEVERITY = (3, 5, 4, 8, 6, 7)


def deciding_exit_code(codes: Iterable[int]) -> int:
    """The exit code of several results: the first of 3, 5, 4, 8, 6, 7, else any other, else 0."""
    present = set(codes) - {0}
    for code in _SEVERITY:
        if code in present:
            return code
    return min(present, default=0)
