"""What an observed command did that a stage can't do, in words for the recipe's author."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence

from modelbuild.draft.drafted import Draft
from modelbuild.draft.files import Files
from modelbuild.draft.fixed_places import is_of_tensorboard
from modelbuild.draft.observe import Observation
from modelbuild.draft.seen_files import SeenFiles, is_below, is_temporary
from modelbuild.spec.logins import without_logins
from modelbuild.spec.references import variable_suffix

_HARMLESS = re.compile(
    r"python[\d.]*|(ba|da|z)?sh|env|uname|lscpu|ldconfig(\.real)?|ld|objdump|cc|gcc|g\+\+|c\+\+|file"
    r"|nvidia-smi|rocm-smi|lsb_release|which"
)
"""Programs that Python and libraries ask about the machine."""
_FEW = 4


def notes(
    drafted: Draft, seen: Observation, found: SeenFiles, files: Files, located: Sequence[str]
) -> Iterator[str]:
    """`located` are the paths outside of the workspace that became data."""
    script = drafted.script.path
    for name in drafted.outside:
        yield (
            f"data '{name}' lies outside of the workspace: say where with "
            f"MODELBUILD_LOCATION_{variable_suffix(name)}, or in config.toml."
        )
    if seen.urls or seen.hosts:
        yield _network(script, seen)
    yield from _outside(drafted, found, files, located)
    if not found.written:
        yield f"{script} wrote no file: a stage must write to its output folder, {{out}}."
    elif all(map(is_of_tensorboard, found.written)):
        yield (
            f"{script} wrote nothing but TensorBoard's files, which are not kept: a stage must "
            "write what it makes to its output folder, {out}."
        )
    if "git" in seen.programs:
        yield f"{script} asks git: a stage has no repository."
    programs = [each for each in seen.programs if not _HARMLESS.fullmatch(each) and each != "git"]
    if programs:
        yield (
            f"{script} starts {_shown(programs)}: of what those read, only the files of the "
            "workspace were seen."
        )


def _network(script: str, seen: Observation) -> str:
    sources = [without_logins(url.partition("?")[0]) for url in seen.urls] or list(seen.hosts)
    return (
        f"{script} downloads from {_shown(sources)}: a stage has no network. Declare what it "
        'fetches as [data.NAME] url = "...", and pass {data.NAME}.'
    )


def _outside(
    drafted: Draft, found: SeenFiles, files: Files, located: Sequence[str]
) -> Iterator[str]:
    script = drafted.script.path
    loose = [
        each
        for each in found.outside
        if not any(is_below(each, place) for place in located) and not is_temporary(each, files)
    ]
    if loose:
        yield (
            f"{script} reads {_shown(_places(loose, files))}, outside of the workspace: declare "
            'it as [data.NAME] location = "NAME", and pass {data.NAME}.'
        )
    elsewhere = [
        each
        for each in found.written
        if each.startswith("..")
        and not is_temporary(each, files)
        and not any("{out}" in word for argument in drafted.stage.arguments for word in argument)
    ]
    if elsewhere:
        yield (
            f"{script} writes {_shown(_places(elsewhere, files))}: a stage can write to its "
            "output folder only, {out}."
        )


def _places(paths: Iterable[str], files: Files) -> list[str]:
    """As a person calls them."""
    home = os.path.expanduser("~")
    found = []
    for path in sorted(paths):
        absolute = os.path.abspath(files.folder / path)
        found.append(f"~{absolute[len(home) :]}" if is_below(absolute, home) else absolute)
    return found


def _shown(texts: Iterable[str]) -> str:
    all_of_them = list(dict.fromkeys(texts))
    more = len(all_of_them) - _FEW
    shown = ", ".join(all_of_them[:_FEW])
    return f"{shown} and {more} more" if more > 0 else shown
