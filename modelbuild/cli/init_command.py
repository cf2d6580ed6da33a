"""`modelbuild init`"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelbuild.cli.arguments import Parser
from modelbuild.draft.initialise import InitReport, InitRequest, init
from modelbuild.sandbox.machine import this_machine

_MOST_THREADS = 4
"""A recipe should build on a laptop too, at the speed that it was made for."""


def parser() -> Parser:
    made = Parser(
        "init",
        "Write recipe.toml for a folder with a training script: its imports become the packages,\n"
        "the files that it reaches the code, its options parameters, data, seed and output.\n"
        "A command after -- is run once, and the recipe written from what it reads and writes.",
        "modelbuild init -- python train.py --epochs 1",
    )
    made.add_argument("folder", type=Path, nargs="?", metavar="FOLDER")
    made.add_argument("--script", help="the training script, where there are several")
    made.add_argument(
        "--from", type=Path, metavar="FILE", dest="source", help="a dvc.yaml or requirements.txt"
    )
    made.add_argument("--name", help="the recipe's name; default: the folder's")
    made.add_argument("--json", action="store_true", help="print what was written as JSON")
    made.add_argument("--quiet", action="store_true", help="print errors only")
    return made


def run(arguments: Sequence[str]) -> int:
    words = list(arguments)
    cut = words.index("--") if "--" in words else len(words)
    command = tuple(words[cut + 1 :])
    options = parser().parse(words[:cut])
    if cut < len(words) and not command:
        parser().error("there is no command after --")
    if command and options.script:
        parser().error("--script and a command exclude each other")
    if command and options.source:
        parser().error("--from and a command exclude each other")
    folder = options.folder or (options.source.parent if options.source else Path())
    prefix = active_environment(folder, os.environ)
    report = init(
        InitRequest(
            folder=folder,
            script=options.script,
            command=command,
            source=options.source,
            name=options.name,
            prefix=prefix,
            python=python_of(prefix),
            threads=min(_MOST_THREADS, os.cpu_count() or 1),
            has_gpu=bool(this_machine(with_gpus=True).gpus),
        )
    )
    if options.json:
        import json

        print(json.dumps(to_json(report), indent=2))
    elif not options.quiet:
        _print_report(report)
    return 0


def active_environment(folder: Path, variables: Mapping[str, str]) -> Path:
    """The Python environment in which the script runs today, as far as can be told."""
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if variables.get(name):
            return Path(variables[name])
    for name in (".venv", "venv"):
        if (folder / name / "pyvenv.cfg").is_file():
            return folder / name
    return Path(sys.prefix)


def python_of(prefix: Path) -> str:
    """The version of Python in an environment, else the one that runs now."""
    for path in sorted(prefix.glob("lib/python3.*/site-packages")):
        if re.fullmatch(r"python3\.\d+", path.parent.name):
            return path.parent.name.removeprefix("python")
    return f"3.{sys.version_info.minor}"


def _print_report(report: InitReport) -> None:
    here = Path.cwd()
    for path in report.written:
        print(f"wrote {_shown(path, here)}", file=sys.stderr)
    if report.notes:
        print(f"left to do in {report.script}, or in the recipe:", file=sys.stderr)
        for note in report.notes:
            print(f"  - {note}", file=sys.stderr)
    recipe = _shown(report.path, here)
    print(
        f"next:\n  modelbuild build {recipe}\n  modelbuild verify --rebuild {recipe}",
        file=sys.stderr,
    )
    print(recipe)


def _shown(path: Path, here: Path) -> str:
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def to_json(report: InitReport) -> dict[str, object]:
    """The documented record of `modelbuild init --json`."""
    return {
        "recipe": report.recipe.name,
        "path": str(report.path),
        "script": report.script,
        "written": [str(path) for path in report.written],
        "notes": list(report.notes),
    }
