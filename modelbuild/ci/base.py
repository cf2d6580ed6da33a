"""Where a branch began: the commit to compare with, fetched where a shallow clone lacks it."""

from __future__ import annotations

import re

from modelbuild.errors import UsageError
from modelbuild.review.revisions import commit_of, git, outside_of_git
from modelbuild.sources.workspace import Workspace

_MOST_BRANCHES = 12
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")


def merge_base(base: str, workspace: Workspace) -> str:
    """The digest of the commit at which HEAD left `base`, such as `origin/main`.

    What is missing is fetched: of a shallow clone some history, then all of it. Nothing but
    remote-tracking refs and the depth of the clone changes. Raises UsageError where there is no
    such commit, or it can't be fetched.
    """
    if problem := outside_of_git(workspace):
        raise problem
    said = ""
    for depth in _depths(workspace):
        if depth is not None:
            said = _fetch(base, depth, workspace)
        code, found, words = _git(["merge-base", "--end-of-options", "HEAD", base], workspace)
        if code == 0:
            return found
        said = said or words
    if not _is_shallow(workspace) and commit_of(base, workspace):
        raise UsageError(
            f"HEAD and '{base}' have no commit in common",
            facts=[("git", said)] if said else [],
        )
    if not _may_be_missing(base, workspace):
        raise _no_revision(base, workspace)
    raise UsageError(
        f"the commit at which this branch left '{base}' is not in this clone",
        facts=[("git", said or "HEAD and it have no common ancestor")],
        hint=(
            "Check out the whole history: fetch-depth: 0 (GitHub), GIT_DEPTH: 0 (GitLab),"
            " git fetch --unshallow"
        ),
    )


def _may_be_missing(base: str, workspace: Workspace) -> bool:
    """Whether a clone with more history might have it. A word that names nothing is misspelt."""
    if _is_shallow(workspace) or _COMMIT.fullmatch(base):
        return True
    _, remotes, _ = _git(["remote"], workspace)
    remote, _, branch = base.partition("/")
    if not branch or remote not in remotes.split():
        return False
    # Without an answer from the remote, nobody knows.
    code, found, _ = _git(["ls-remote", "--heads", "--", remote, branch], workspace)
    return code != 0 or bool(found)


def _no_revision(base: str, workspace: Workspace) -> UsageError:
    from difflib import get_close_matches

    listing = ["for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes"]
    known = _git(listing, workspace)[1].split()
    near = get_close_matches(base, known, n=1)
    return UsageError(
        f"there is no git revision '{base}'",
        facts=[("branches", ", ".join(known[:_MOST_BRANCHES]) or "none")],
        hint=f"Did you mean: --base {near[0]}" if near else None,
    )


def _depths(workspace: Workspace) -> list[list[str] | None]:
    """What to try one after the other; None is what is here already."""
    return [None, ["--deepen=100"], ["--unshallow"]] if _is_shallow(workspace) else [None, []]


def _is_shallow(workspace: Workspace) -> bool:
    return _git(["rev-parse", "--is-shallow-repository"], workspace)[1] == "true"


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
