"""`modelbuild log`"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

from modelbuild.build.outputs import find_log
from modelbuild.cli.arguments import Parser
from modelbuild.cli.targets import lookup


def parser() -> Parser:
    made = Parser(
        "log",
        "Show what a stage printed: of the run that made its output, else of the last run.",
        "modelbuild log digits:train",
    )
    made.add_argument("target", metavar="RECIPE[:STAGE]", help="default stage: the last one")
    made.add_argument("--path", action="store_true", help="print the path of the log instead")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    path = find_log(lookup(options.target))
    if options.path:
        print(path)
        return 0
    if not path.stat().st_size:
        print(f"{options.target} printed nothing", file=sys.stderr)
    with path.open("rb") as log:
        shutil.copyfileobj(log, sys.stdout.buffer)
    return 0
