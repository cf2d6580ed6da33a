"""A recipe through the commits that changed its lock: metrics, and what moved them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from modelbuild.errors import InvalidInputError, UsageError
from modelbuild.review.difference import RecipeDifference, compare_recipe
from modelbuild.review.probes import ProbeChange, compare_probes
from modelbuild.review.revisions import checked_git, git
from modelbuild.sources.workspace import LOCK_NAME, Workspace
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import open_lock

_FIELDS = "%H%x00%cs%x00%an%x00%s%x00"


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    id: str
    date: str
    """Of the commit, as `2026-01-31`."""
    author: str
    subject: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A commit in which the recipe's entry in the lock is not what it was before, or the probes
    of its numeric classes were replaced.
    """

    commit: Commit
    difference: RecipeDifference
    """From the step before; the first one adds the recipe."""
    probes: tuple[ProbeChange, ...] = ()
    """Of the recipe's numeric classes."""

    @property
    def metrics(self) -> dict[str, float]:
        """What its lock claims, by `STAGE METRIC`; nothing where it was not built."""
        return {
            f"{stage.name} {name}": value
            for stage in self.difference.stages
            if stage.new
            for name, value in stage.new.metrics.items()
        }

    @property
    def cause(self) -> str:
        """What moved, without what follows from it."""
        if self.difference.kind != "changed":
            return self.difference.kind
        reasons = {
            reason: None
            for stage in self.difference.stages
            for reason in stage.reasons
            if not reason.startswith("stages.")
        }
        probes = dict.fromkeys(each.says for each in self.probes if each.is_alarm)
        same = not any(stage.changed for stage in self.difference.stages)
        rest = [] if probes and same else ["built"]
        return ", ".join([*(reasons or rest), *probes])


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    recipe: str
    steps: tuple[Step, ...]
    """Oldest first."""
    unreadable: tuple[Commit, ...]
    """Commits whose lock does not parse: of another schema, or with conflict markers."""


def history(recipe: str, workspace: Workspace, limit: int | None = None) -> History:
    """Every step of a recipe on the way to HEAD, along first parents.

    A merge counts as one step. `limit` is how many commits of the lock are looked at, latest
    first. Raises UsageError where no lock of this history has the recipe.
    """
    commits = _commits(workspace, limit)
    steps: list[Step] = []
    unreadable: list[Commit] = []
    seen: set[str] = set()
    before = Lock()
    for commit, data in zip(commits, _locks(commits, workspace), strict=True):
        try:
            now = open_lock(data, f"{commit.id[:8]}:{LOCK_NAME}") if data else Lock()
            probes = tuple(each for each in compare_probes(before, now) if recipe in each.recipes)
            always = any(each.is_alarm for each in probes)
            difference = compare_recipe(recipe, before, now, always=always)
        except InvalidInputError:
            unreadable.append(commit)
            continue
        seen.update(now.recipes)
        if difference is not None:
            steps.append(Step(commit=commit, difference=difference, probes=probes))
        before = now
    if not steps:
        raise _unknown(recipe, seen, unreadable)
    return History(recipe=recipe, steps=tuple(steps), unreadable=tuple(unreadable))


def _commits(workspace: Workspace, limit: int | None) -> list[Commit]:
    command = ["log", "--first-parent", "-z", f"--format={_FIELDS}"]
    command += [] if limit is None else [f"--max-count={limit}"]
    code, found, said = git([*command, "--", LOCK_NAME], workspace)
    if code != 0:
        raise UsageError(
            "git has no history of model.lock",
            facts=[("git", said.decode(errors="replace").strip())],
            hint="Commit model.lock: its history is that of the models.",
        )
    words = found.decode(errors="replace").split("\0")
    records = [words[start : start + 4] for start in range(0, len(words) - 4, 5)]
    commits = [Commit(id=i.strip(), date=d, author=a, subject=s) for i, d, a, s in records]
    return commits[::-1]


def _locks(commits: Sequence[Commit], workspace: Workspace) -> Iterator[bytes]:
    """model.lock in each commit, by one process of git; empty where a commit removed it."""
    wanted = "".join(f"{commit.id}:./{LOCK_NAME}\n" for commit in commits)
    rest = checked_git(["cat-file", "--batch"], workspace, wanted.encode())
    for _ in commits:
        header, _, rest = rest.partition(b"\n")
        if header.endswith(b" missing"):
            yield b""
            continue
        size = int(header.rsplit(b" ", 1)[1])
        yield rest[:size]
        rest = rest[size + 1 :]


def _unknown(recipe: str, seen: set[str], unreadable: Sequence[Commit]) -> UsageError:
    facts = [("recipes in it", ", ".join(sorted(seen)) or "none")]
    if unreadable:
        facts.append(("commits whose lock can't be read", str(len(unreadable))))
    return UsageError(f"no commit has a lock of recipe '{recipe}'", facts=facts)
