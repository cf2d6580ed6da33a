"""`modelbuild completion`"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import cast

from modelbuild.cli.arguments import Parser

SHELLS = ("bash", "zsh", "fish")


def parser() -> Parser:
    made = Parser(
        "completion",
        "Print what a shell needs to complete modelbuild's commands, options and files.\n"
        'In ~/.bashrc: eval "$(modelbuild completion bash)"',
        "modelbuild completion bash",
    )
    made.add_argument("shell", choices=SHELLS)
    return made


def run(arguments: Sequence[str]) -> int:
    options = parser().parse(arguments)
    import shtab

    print(shtab.complete(_all_commands(), options.shell))
    return 0


def _all_commands() -> argparse.ArgumentParser:
    """One parser of all commands, which are otherwise parsed one by one."""
    from modelbuild.cli.main import COMMANDS, CommandModule

    whole = argparse.ArgumentParser(prog="modelbuild")
    whole.add_argument("--version", action="version")
    commands = whole.add_subparsers()
    for name, text in COMMANDS.items():
        module = cast(CommandModule, import_module(f"modelbuild.cli.{name}_command"))
        command = commands.add_parser(
            name, help=text, parents=[module.parser()], conflict_handler="resolve"
        )
        _complete_files(command)
    return whole


def _complete_files(command: argparse.ArgumentParser) -> None:
    """Where a path is wanted, and where a recipe is, which may be named by its file."""
    import shtab

    for action in command._actions:
        if action.type is Path or not (action.option_strings or action.choices):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
