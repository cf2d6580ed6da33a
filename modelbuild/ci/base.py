"""Where a branch began: the commit to compare with, fetched where a shallow clone lacks it."""

from __future__ import annotations

import re

from modelbuild.errors import UsageError
from modelbuild.review.revisions import git
from modelbuild.sources.workspace import Workspace

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def merge_base(base: str, workspace: Workspace) -> str:
    """The digest of the commit at which HEAD left `base`, such as `origin/main`.

    What is missing is fetched: of a shallow clone some history, then all of it. Nothing but
    remote-tracking refs and the depth of the clone changes. Raises UsageError where there is no
    such commit, or it can't be fetched.
    """
    said = ""
    for depth in _depths(workspace):
        if depth is not None:
            said = _fetch(base, depth, workspace)
        code, found, words = _git(["merge-base", "--end-of-options", "HEAD", base], workspace)
        if code == 0:
            return found
        said = said or words
    raise UsageError(
        f"the commit at which this branch left '{base}' is not in this clone",
        facts=[("git", said or "HEAD and it have no common ancestor")],
        hint=(
            "Check out the whole history: fetch-depth: 0 (GitHub), GIT_DEPTH: 0 (GitLab),"
            " git fetch --unshallow"
        ),
    )


def _depths(workspace: Workspace) -> list[list[str] | None]:
    """What to try one after the other; None is what is here already."""
    _, shallow, _ = _git(["rev-parse", "--is-shallow-repository"], workspace)
    return [None, ["--deepen=100"], ["--unshallow"]] if shallow == "true" else [None, []]


def _fetch(base: str, depth: list[str], workspace: Workspace) -> str:
    """What git says where it fails."""
    _, remotes, _ = _git(["remote"], workspace)
    remote, _, branch = base.partition("/")
    if branch and remote in remotes.split():
        wanted = f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}"
    elif _COMMIT.fullmatch(base):
        remote, wanted = "origin", base
    else:
        return ""
    _, head, _ = _git(["rev-parse", "HEAD"], workspace)
    # HEAD too: its history is as short as that of the branch.
    options = ["--quiet", "--no-tags", "--no-recurse-submodules", *depth]
    code, _, said = _git(["fetch", *options, "--", remote, wanted, head], workspace)
    return said if code else ""


def _git(arguments: list[str], workspace: Workspace) -> tuple[int, str, str]:
    code, found, said = git(arguments, workspace)
    return code, found.decode().strip(), said.decode(errors="replace").strip()
