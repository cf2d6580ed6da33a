"""`modelbuild diff`"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelbuild.cli.arguments import Parser
from modelbuild.cli.targets import workspace_of
from modelbuild.review.behind import behind
from modelbuild.review.difference import LockDifference, compare_locks
from modelbuild.review.revisions import lock_at

if TYPE_CHECKING:
    from argparse import Namespace


def parser() -> Parser:
    made = Parser(
        "diff",
        "Say what changed between two locks, in the words of a reviewer: what came out, which\n"
        "stages are built again, and why. OLD and NEW are git revisions or files; without them,\n"
        "the working tree is compared with HEAD. Neither data nor packages nor a store are needed.",
        "modelbuild diff main --markdown",
    )
    made.add_argument("old", nargs="?", default="HEAD", metavar="OLD")
    made.add_argument("new", nargs="?", metavar="NEW")
    made.add_argument("--all", action="store_true", help="list everything, fold nothing")
    made.add_argument("--markdown", action="store_true", help="for a comment on a pull request")
    made.add_argument("--json", action="store_true", help="print the difference as JSON")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    workspace = workspace_of(None)
    old, new = lock_at(options.old, workspace), lock_at(options.new, workspace)
    print(_rendered(compare_locks(old.lock, new.lock), old.label, new.label, options))
    if options.new is None and (left := behind(new.lock, workspace)):
        names = ", ".join(map(str, left))
        print(f"model.lock is behind {names}: modelbuild lock", file=sys.stderr)
    return 0


def _rendered(difference: LockDifference, old: str, new: str, options: Namespace) -> str:
    if options.json:
        import json

        from modelbuild.cli.diff_json import to_json

        return json.dumps(to_json(difference), indent=2)
    if options.markdown:
        from modelbuild.cli.diff_markdown import diff_markdown

        return diff_markdown(difference, old, new)
    from modelbuild.cli.diff_text import diff_text

    return diff_text(difference, old, new, everything=options.all)
