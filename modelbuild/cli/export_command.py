"""`modelbuild export`"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from modelbuild.cli.arguments import Parser
from modelbuild.cli.targets import lookup


def parser() -> Parser:
    made = Parser(
        "export",
        "Copy what a stage built to a folder of yours, where it can be written; or log it as a\n"
        "run of MLflow: parameters, metrics, curves, tags, files.",
        "modelbuild export digits:train ./model",
    )
    made.add_argument("target", metavar="RECIPE[:STAGE]", help="default stage: the last one")
    made.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    made.add_argument("--mlflow", metavar="URI", help="the tracking server, or sqlite:///FILE")
    made.add_argument("--experiment", metavar="NAME", help="default: the recipe's name")
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    if (options.folder is None) == (options.mlflow is None):
        parser().error("name either a folder or --mlflow URI")
    if options.experiment and options.mlflow is None:
        parser().error("--experiment needs --mlflow")
    if options.mlflow is None:
        from modelbuild.export.folder import export_folder

        print(export_folder(lookup(options.target), options.folder))
        return 0
    from modelbuild.export.mlflow import export_mlflow

    logged = export_mlflow(lookup(options.target), options.mlflow, options.experiment)
    if not logged.is_new:
        print("this output was logged before", file=sys.stderr)
    print(logged.run)
    return 0
