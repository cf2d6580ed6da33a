"""What the commands' parsers share."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import NoReturn

from modelbuild.errors import UsageError


def _formatter(prog: str) -> argparse.HelpFormatter:
    # Every argument makes one; to ask the terminal for its width each time takes milliseconds.
    return argparse.RawDescriptionHelpFormatter(prog, width=100)


def positive(text: str) -> int:
    """The type of an option that counts: 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return number


def unknown_name(what: str, name: str, known: Iterable[str]) -> UsageError:
    """That there is no such thing, with what there is and the nearest of it."""
    from difflib import get_close_matches

    names = sorted(set(known))
    near = get_close_matches(name, names, n=1)
    return UsageError(
        f"there is no {what} '{name}'",
        facts=[("found", ", ".join(names) or "none")],
        hint=f"Did you mean: {near[0]}" if near else None,
    )


class Parser(argparse.ArgumentParser):
    """Says what is wrong as every other error is said, with exit code 2."""

    def __init__(self, command: str, description: str, example: str) -> None:
        super().__init__(
            prog=f"modelbuild {command}",
            description=description,
            epilog=f"example:\n  {example}",
            formatter_class=_formatter,
            allow_abbrev=False,
        )

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Raises UsageError, with the nearest spelling of an option that there is not."""
        options, unknown = self.parse_known_args(words)
        if not unknown:
            return options
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            self.error(f"there is one argument too many: {word}")
        from difflib import get_close_matches

        near = get_close_matches(word, list(self._option_string_actions), n=1)
        hint = f"Did you mean: {near[0]}" if near else f"{self.prog} --help explains it."
        raise UsageError(f"{self.prog}: there is no option {word}", hint=hint)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}", hint=f"{self.prog} --help explains it.")


def unknown_command(word: str, commands: Iterable[str]) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(word, list(commands), n=1)
    hint = f"Did you mean: modelbuild {near[0]}" if near else "modelbuild --help lists them."
    return UsageError(f"there is no command '{word}'", hint=hint)
