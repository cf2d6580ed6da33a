"""The lock as it is in a git revision, in a file, or in the working tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import UsageError
from modelbuild.sources.lock_on_disk import read_lock
from modelbuild.sources.workspace import LOCK_NAME, Workspace
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import open_lock

WORKING_TREE = "working tree"


@dataclass(frozen=True, kw_only=True, slots=True)
class LockVersion:
    label: str
    """What the user called it."""
    lock: Lock
    """Empty where there was none yet."""


def lock_at(place: str | None, workspace: Workspace) -> LockVersion:
    """`place` is a file or a git revision; None: the working tree. Raises UsageError."""
    if place is None:
        return LockVersion(label=WORKING_TREE, lock=read_lock(workspace))
    file = Path(place)
    if file.is_file():
        return LockVersion(label=place, lock=open_lock(file.read_bytes(), place))
    return lock_of_revision(place, workspace)


def lock_of_revision(revision: str, workspace: Workspace) -> LockVersion:
    """Raises UsageError where git knows of no such revision."""
    data = lock_bytes_at(revision, workspace)
    lock = open_lock(data, f"{revision}:{LOCK_NAME}") if data else Lock()
    return LockVersion(label=revision, lock=lock)


def lock_bytes_at(revision: str, workspace: Workspace) -> bytes:
    """model.lock of a revision; empty where it has none. Raises UsageError for no revision."""
    place = f"{revision}:./{LOCK_NAME}"
    code, found, _ = git(["show", "--no-textconv", "--end-of-options", place], workspace)
    if code == 0:
        return found
    known, _, said = _rev_parse(revision, workspace)
    if known == 0:
        return b""
    facts = [("workspace", str(workspace.root)), ("git", said.decode(errors="replace").strip())]
    raise UsageError(
        f"there is no git revision and no file '{revision}'",
        facts=[fact for fact in facts if fact[1]],
        hint="Name two locks to compare, by file or by revision: modelbuild diff main HEAD",
    )


def commit_of(revision: str, workspace: Workspace) -> str | None:
    """The commit that a revision names; None where it names none, or git knows of nothing here."""
    try:
        code, found, _ = _rev_parse(revision, workspace)
    except UsageError:
        return None
    return found.decode().strip() if code == 0 else None


def _rev_parse(revision: str, workspace: Workspace) -> tuple[int, bytes, bytes]:
    verify = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    return git(verify, workspace)


def git(arguments: list[str], workspace: Workspace, given: bytes = b"") -> tuple[int, bytes, bytes]:
    """Exit code, stdout and stderr of git in the workspace, which reads `given`.

    Raises UsageError without git.
    """
    import subprocess

    command = ["git", "-C", str(workspace.root), *arguments]
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False)
    except FileNotFoundError:
        raise UsageError("git is not installed", hint="Name two files instead.") from None
    return done.returncode, done.stdout, done.stderr


def outside_of_git(workspace: Workspace) -> UsageError | None:
    """That the workspace is in no repository; None where it is in one."""
    code, _, said = git(["rev-parse", "--git-dir"], workspace)
    if code == 0:
        return None
    return UsageError(
        f"there is no git repository around {workspace.root}",
        facts=[("git", said.decode(errors="replace").strip())],
        hint="To make one: git init",
    )


def checked_git(arguments: list[str], workspace: Workspace, given: bytes = b"") -> bytes:
    """What git prints. Raises UsageError where it fails."""
    code, found, said = git(arguments, workspace, given)
    if code != 0:
        raise UsageError(
            f"git {arguments[0]} failed",
            facts=[("git", said.decode(errors="replace").strip())],
        )
    return found
