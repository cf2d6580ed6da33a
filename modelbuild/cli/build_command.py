"""`modelbuild build`: the options, and the answer where nothing changed since the last time."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from modelbuild.build.unchanged import recall
from modelbuild.cli.arguments import Parser
from modelbuild.store.location import store_root


def parser() -> Parser:
    made = Parser(
        "build",
        "Build every stage of a recipe that is not built yet, in a sandbox, and print where its\n"
        "last stage's output is. What is built already is not built again.",
        "modelbuild build recipe.toml",
    )
    made.add_argument("recipe", nargs="?", default="recipe.toml")
    made.add_argument("--locked", action="store_true", help="fail if model.lock would change")
    made.add_argument("--dry-run", action="store_true", help="only say what would be built")
    made.add_argument("--keep-failed", action="store_true", help="keep what a failed stage left")
    made.add_argument(
        "--claim", action="store_true", help="add a claim for this machine's numeric class"
    )
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an experiment: params.lr=0.01; never becomes a claim",
    )
    made.add_argument(
        "--isolation",
        choices=["full", "none"],
        default="full",
        help="none: without a sandbox, for machines that can't have one; never becomes a claim",
    )
    made.add_argument("--paranoid", action="store_true", help="hash data in place again")
    made.add_argument("--no-link", action="store_true", help="write no result-... links here")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.add_argument("--quiet", action="store_true", help="print only where the output is")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    question = [os.getcwd(), os.path.realpath(options.recipe), *arguments, *_variables()]
    answer = recall(store_root(os.environ), question)
    if answer is not None:
        sys.stderr.write(answer["err"])
        sys.stdout.write(answer["out"])
        return 0
    # Imported here: with nothing to do, this would take longer than all else.
    from modelbuild.cli.build_result import build_and_print

    return build_and_print(options, question)


def _variables() -> list[str]:
    """Those that decide where data and the user's configuration are."""
    return sorted(
        f"{name}={value}"
        for name, value in os.environ.items()
        if name.startswith("MODELBUILD_LOCATION_") or name in ("HOME", "XDG_CONFIG_HOME")
    )
