"""`modelbuild export`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelbuild.cli.arguments import Parser
from modelbuild.cli.targets import lookup
from modelbuild.export.folder import export_folder


def run(arguments: Sequence[str]) -> int:
    parser = Parser(
        "export",
        "Copy what a stage built to a folder of yours, where it can be written.",
        "modelbuild export digits:train ./model",
    )
    parser.add_argument("target", metavar="RECIPE[:STAGE]", help="default stage: the last one")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    options = parser.parse(arguments)
    print(export_folder(lookup(options.target), options.folder))
    return 0
