"""`modelbuild COMMAND ...`: find the command, run it, turn errors into messages."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from modelbuild.errors import INTERRUPTED, ModelbuildError

if TYPE_CHECKING:
    from argparse import ArgumentParser

COMMANDS = {
    "init": "write a recipe for the scripts in a folder",
    "lock": "pin every input of the recipes in model.lock",
    "build": "build a recipe's stages, or find them built",
    "verify": "check that the lock's claims hold; with --rebuild, train again and compare",
    "diff": "say what changed between two locks, as a reviewer reads it",
    "why": "say why a stage would be built, or what keeps something in the store",
    "history": "show a recipe's metrics over the commits that changed its lock",
    "runs": "list what was built here, with the settings in which runs differ",
    "show": "show everything that went into one output, as a tree",
    "report": "write a page about recipes: verification, lineage, curves, history, packages",
    "compare": "compare the metrics of two recipes, on the same seeds",
    "ci": "check a change: lock, difference, and what this machine can build",
    "git": "have git merge and show model.lock recipe by recipe",
    "log": "show what a stage printed",
    "shell": "open a shell in a stage's sandbox",
    "export": "copy a built output to a folder of yours",
    "doctor": "say what this machine can do, and how to get what it can't",
    "completion": "print what a shell needs to complete these commands",
}

_USAGE = """usage: modelbuild COMMAND [...]

Build a trained model again, bit for bit.

commands:
{commands}

Every command explains itself: modelbuild COMMAND --help
example: modelbuild build recipe.toml"""


class CommandModule(Protocol):
    """One file of this folder."""

    def parser(self) -> ArgumentParser:
        """Of the words behind the command."""
        ...

    def run(self, arguments: Sequence[str]) -> int:
        """Parse, call the library, render. Returns the exit code."""
        ...


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Only the module of the command asked for is imported."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if sys.stdout is None:  # closed by the caller
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, _interrupt_once)
        try:
            code = _dispatch(words)
        except ModelbuildError as error:
            code = _report(error, words)
        except SystemExit as ended:  # argparse has printed its help
            code = int(ended.code or 0)
        # Here and not at Python's end, where nobody could tell that the reader is gone.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Nobody reads any more; without this, Python complains again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        code = _report(_from_system(error), words)
    try:
        sys.stdout.flush()
    except OSError:  # stdout is what can't be written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _interrupt_once(*_: object) -> NoReturn:
    """The first Ctrl-C cleans up; an impatient second one must not interrupt that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
        print(_USAGE.format(commands="\n".join(lines)), file=sys.stdout if words else sys.stderr)
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"modelbuild {version('modelbuild')}")
        return 0
    if words[0] not in COMMANDS:
        from modelbuild.cli.arguments import unknown_command

        raise unknown_command(words[0], COMMANDS)
    module = cast(CommandModule, import_module(f"modelbuild.cli.{words[0]}_command"))
    return module.run(words[1:])


def _report(error: ModelbuildError, words: Sequence[str]) -> int:
    print(f"error: {error}", file=sys.stderr)
    own = words[: words.index("--")] if "--" in words else words
    if "--json" in own:
        import json

        print(json.dumps({"error": {"exit_code": error.exit_code, "message": str(error)}}))
    return error.exit_code


def _from_system(error: OSError) -> ModelbuildError:
    """No space, no permission: what the system said, without a traceback."""
    hints = {
        errno.ENOSPC: "Free some space, or set MODELBUILD_STORE to a folder on a larger disk.",
        errno.EDQUOT: "Free some space, or set MODELBUILD_STORE to a folder on a larger disk.",
        errno.EACCES: "Check who owns it and its permissions.",
        errno.EPERM: "Check who owns it and its permissions.",
        errno.EROFS: "Set MODELBUILD_STORE to a folder that can be written.",
    }
    where = error.filename or error.filename2
    return ModelbuildError(
        f"{error.strerror or error}" + (f": {os.fsdecode(where)}" if where else ""),
        hint=hints.get(error.errno or 0),
    )
