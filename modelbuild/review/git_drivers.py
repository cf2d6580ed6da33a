"""Git's merge and diff of model.lock, recipe by recipe, in one clone."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import ModelbuildError
from modelbuild.review.revisions import checked_git, git, outside_of_git
from modelbuild.sources.workspace import LOCK_NAME, Workspace
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import parse_lock
from modelbuild.spec.lock_merge import Merge, merge_locks
from modelbuild.store.store import write_atomically

ATTRIBUTE = f"{LOCK_NAME} merge=modelbuild diff=modelbuild"


@dataclass(frozen=True, kw_only=True, slots=True)
class Drivers:
    """What `install` did: nothing that is committed or reaches another clone."""

    attributes: Path
    settings: dict[str, str]


def install(workspace: Workspace) -> Drivers:
    """Have git use `modelbuild git merge` and `modelbuild git diff` in this clone.

    The attribute goes into the clone's own file, which wins over a committed one: hosting sites,
    which run no driver, go on merging by lines. Raises UsageError outside of a repository.
    """
    if problem := outside_of_git(workspace):
        raise problem
    program = shlex.join([sys.executable, "-m", "modelbuild", "git"])
    settings = {
        "merge.modelbuild.name": "model.lock, recipe by recipe",
        "merge.modelbuild.driver": f"{program} merge %O %A %B",
        "diff.modelbuild.command": f"{program} diff",
    }
    for name, value in settings.items():
        checked_git(["config", "--local", name, value], workspace)
    attributes = _attributes(workspace)
    lines = attributes.read_text().splitlines() if attributes.exists() else []
    if ATTRIBUTE not in lines:
        attributes.parent.mkdir(exist_ok=True)
        write_atomically(attributes, "".join(f"{line}\n" for line in [*lines, ATTRIBUTE]).encode())
    return Drivers(attributes=attributes, settings=settings)


def uninstall(workspace: Workspace) -> None:
    """Undo `install`. Raises UsageError outside of a repository."""
    if problem := outside_of_git(workspace):
        raise problem
    for section in ("merge.modelbuild", "diff.modelbuild"):
        git(["config", "--local", "--remove-section", section], workspace)
    attributes = _attributes(workspace)
    if attributes.exists():
        lines = [each for each in attributes.read_text().splitlines() if each != ATTRIBUTE]
        write_atomically(attributes, "".join(f"{line}\n" for line in lines).encode())


def _attributes(workspace: Workspace) -> Path:
    folder = checked_git(["rev-parse", "--git-path", "info/attributes"], workspace).decode().strip()
    return workspace.root / folder


def merge_files(base: Path, ours: Path, theirs: Path) -> Merge | None:
    """Merge into `ours`, as git asks of a driver.

    None where one of the three is no lock that can be read: `ours` is left as it is, and git
    calls that a conflict.
    """
    try:
        merge = merge_locks(*(_read(path) for path in (base, ours, theirs)))
    except ModelbuildError:
        return None
    write_atomically(ours, merge.render())
    return merge


def _read(path: Path) -> Lock:
    data = path.read_bytes()
    return parse_lock(data, path.name) if data else Lock()
