"""What the words of `modelbuild compare` name: recipes, runs or git revisions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from modelbuild.cli.targets import workspace_of
from modelbuild.errors import UsageError
from modelbuild.review.revisions import commit_of
from modelbuild.sources.lock_on_disk import read_lock

if TYPE_CHECKING:
    from argparse import Namespace

_RUN = re.compile(r"(b3:)?[0-9a-f]{8,64}")


class Kind(StrEnum):
    RECIPE = "recipe"
    RUN = "run"
    REVISION = "git revision"


_UNAMBIGUOUS = (
    "Name a recipe by its file, a run by 'b3:' and its id, a revision with '^0' behind it\n"
    "(it is the same commit)."
)
_ONE_KIND = (
    "Compare two recipes, two runs or two revisions.\n"
    "A recipe in two revisions: modelbuild compare main HEAD RECIPE"
)


def kind_of(words: Sequence[str], options: Namespace) -> Kind:
    """What all of them are. Raises UsageError where they are not of one kind, or of several.

    What is built, `--set` and `--seeds`, is a recipe; what has a RECIPE behind it is a revision.
    """
    builds = [f"--{n}" for n in ("set", "seeds") if getattr(options, n) not in ([], None)]
    if options.recipe is not None:
        if builds:
            raise UsageError(
                f"modelbuild compare: {builds[0]} goes with recipes; of revisions nothing is built"
            )
        for word in words:
            if commit_of(word, workspace_of(None)) is None:
                raise UsageError(
                    f"there is no git revision '{word}'",
                    hint="A recipe in two revisions: modelbuild compare main HEAD RECIPE",
                )
        return Kind.REVISION
    if builds:
        _check_recipes(words, builds[0])
        return Kind.RECIPE
    meanings = {word: dict(_meanings(word)) for word in words}
    unknown = [word for word, known in meanings.items() if not known]
    if unknown and len(words) > 1 and all(map(_RUN.fullmatch, words)):
        return Kind.RUN
    if unknown:
        raise _unknown(unknown[0])
    shared = [kind for kind in Kind if all(kind in known for known in meanings.values())]
    if len(words) == 1 and Kind.RUN in shared:
        shared.remove(Kind.RUN)
    if len(shared) == 1:
        return shared[0]
    facts = [
        (word, " or ".join(f"{kind} {what}" for kind, what in known.items()))
        for word, known in meanings.items()
    ]
    problem = "could be of several kinds" if shared else "are not of one kind"
    raise UsageError(
        f"modelbuild compare: {' and '.join(words)} {problem}",
        facts=facts,
        hint=_UNAMBIGUOUS if shared else _ONE_KIND,
    )


def _check_recipes(words: Sequence[str], option: str) -> None:
    """Raise UsageError for a revision: what is built is the working tree's."""
    for word in words:
        kinds = {kind for kind, _ in _meanings(word)}
        if Kind.REVISION in kinds and Kind.RECIPE not in kinds:
            raise UsageError(
                f"modelbuild compare: {option} goes with recipes; '{word}' is a git revision, of"
                " which nothing is built",
                hint=(
                    "Of revisions, seeds that their locks have on record are compared:\n"
                    "modelbuild verify --seeds 5 at each of them, and commit model.lock."
                ),
            )


def _unknown(word: str) -> UsageError:
    from difflib import get_close_matches

    known = sorted(read_lock(workspace_of(None)).recipes)
    near = get_close_matches(word, known, n=1)
    return UsageError(
        f"there is no recipe, no run and no git revision '{word}'",
        facts=[
            ("recipe", f"a file, a folder with recipe.toml, or {', '.join(known) or 'a name'}"),
            ("run", "an id of modelbuild runs"),
            ("revision", "a branch, a tag or a commit"),
        ],
        hint=f"Did you mean: {near[0]}" if near else None,
    )


def _meanings(word: str) -> Iterator[tuple[Kind, str]]:
    """Every kind of which there is something by that name, and what it is."""
    path, workspace = Path(word), workspace_of(None)
    if path.is_file() or (path / "recipe.toml").is_file():
        yield Kind.RECIPE, str(path)
    elif word in (known := read_lock(workspace).recipes):
        yield Kind.RECIPE, str(known[word].path)
    if _RUN.fullmatch(word):
        from modelbuild.review.runs import runs
        from modelbuild.store.store import Store

        wanted = word.removeprefix("b3:")
        for run in runs(Store.open()):
            made = run.realisation
            if made.resolved.hex.startswith(wanted) or made.output.hex.startswith(wanted):
                yield Kind.RUN, f"{run.id} {made.name}"
                break
    commit = commit_of(word, workspace)
    if commit is not None:
        yield Kind.REVISION, commit[:10]
