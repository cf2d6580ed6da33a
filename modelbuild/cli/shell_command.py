"""`modelbuild shell`"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from modelbuild.build.request import BuildRequest
from modelbuild.build.shell import open_shell
from modelbuild.cli.arguments import Parser
from modelbuild.cli.progress import PlainProgress
from modelbuild.cli.targets import workspace_of
from modelbuild.sandbox.isolation import Isolation
from modelbuild.sources.locations import read_locations
from modelbuild.store.store import Store


def parser() -> Parser:
    made = Parser(
        "shell",
        "Open a shell in the sandbox of a stage, with all that it reads. Nothing is kept.\n"
        "A command after -- runs instead of the shell.",
        "modelbuild shell recipe.toml --stage train -- python -c 'import torch'",
    )
    made.add_argument("recipe", type=Path, nargs="?", default=Path("recipe.toml"))
    made.add_argument("--stage", help="default: the last one")
    made.add_argument("--isolation", choices=["full", "none"], default="full")
    return made


def run(arguments: Sequence[str]) -> int:
    words = list(arguments)
    cut = words.index("--") if "--" in words else len(words)
    options = parser().parse(words[:cut])
    workspace = workspace_of(options.recipe)
    request = BuildRequest(
        workspace=workspace,
        store=Store.open(),
        recipe=workspace.relative(options.recipe),
        isolation=Isolation(options.isolation),
        locations=read_locations(os.environ),
        observer=PlainProgress(),
    )
    code = open_shell(request, options.stage, words[cut + 1 :] or ["/bin/sh", "-i"])
    return code if code >= 0 else 128 - code
