"""`modelbuild git`"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from modelbuild.cli.arguments import Parser
from modelbuild.cli.targets import workspace_of
from modelbuild.errors import UsageError

_COUNTS = {"install": (0, 0), "uninstall": (0, 0), "merge": (3, 3), "diff": (1, 9)}


def parser() -> Parser:
    made = Parser(
        "git",
        "Have git merge and show model.lock recipe by recipe, in this clone: `install`, once;\n"
        "`uninstall` undoes it. Git itself then calls `merge BASE OURS THEIRS` and `diff ...`.",
        "modelbuild git install",
    )
    made.add_argument("action", choices=list(_COUNTS))
    made.add_argument("files", nargs="*", metavar="FILE")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    least, most = _COUNTS[options.action]
    if not least <= len(options.files) <= most:
        raise UsageError(
            f"modelbuild git {options.action}: {len(options.files)} files are named",
            facts=[("wanted", str(least) if least == most else f"{least} to {most}")],
        )
    if options.action == "merge":
        return _merge(*map(Path, options.files))
    if options.action == "diff":
        return _diff(options.files)
    return _install() if options.action == "install" else _uninstall()


def _install() -> int:
    from modelbuild.review.git_drivers import install

    done = install(workspace_of(None))
    print(f"git merges and shows model.lock by modelbuild in this clone ({done.attributes})")
    return 0


def _uninstall() -> int:
    from modelbuild.review.git_drivers import uninstall

    uninstall(workspace_of(None))
    print("git merges and shows model.lock as any text")
    return 0


def _merge(base: Path, ours: Path, theirs: Path) -> int:
    from modelbuild.review.git_drivers import merge_files

    merge = merge_files(base, ours, theirs)
    if merge is None:
        print("model.lock: one of the versions is no lock that can be read", file=sys.stderr)
        return 1
    for name, reason in merge.conflicts.items():
        print(f"model.lock: recipe '{name}': {reason}", file=sys.stderr)
    if merge.conflicts:
        hint = "When the other files are merged, run: modelbuild lock"
        print(hint, file=sys.stderr)
    return 1 if merge.conflicts else 0


def _diff(words: Sequence[str]) -> int:
    """Git says: path, then file, digest and mode of either side; of an unmerged path, itself."""
    from modelbuild.cli.diff_text import diff_text
    from modelbuild.review.difference import compare_locks
    from modelbuild.spec.lock import Lock
    from modelbuild.spec.lock_file import open_lock

    if len(words) < 7:
        print(f"{words[0]} is in conflict: modelbuild lock resolves it")
        return 0

    def read(file: str) -> Lock:
        data = Path(file).read_bytes()
        return open_lock(data, words[0]) if data else Lock()

    print(f"model.lock ({words[0]})")
    print(diff_text(compare_locks(read(words[1]), read(words[4])), "before", "after"))
    return 0
