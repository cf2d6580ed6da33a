"""Commands for scripts that read and write at fixed places, which a stage does not have."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Sequence

from modelbuild.draft.drafted import Draft
from modelbuild.draft.files import Files
from modelbuild.draft.seen_files import SeenFiles, covered, in_folders, is_below, kept
from modelbuild.spec.references import variable_suffix

_COPY = '"$TMPDIR/run"'
"""Private to the stage at any isolation."""
_OF_TENSORBOARD = "events.out.tfevents."


def run_where_it_is_used_to(
    draft: Draft,
    found: SeenFiles,
    listed: Collection[str],
    outputs: Sequence[str],
    files: Files,
) -> None:
    """Where the command line does not say all places: run in a copy of the code.

    `listed` are folders that the program listed, `outputs` the places that its arguments name.
    """
    named = [*draft.data.values()]
    loose = {path for path in found.data if not any(is_below(path, each) for each in named)}
    links = []
    for path in in_folders(loose, listed, found.code):
        name = draft.data_name(path)
        if _knows(draft, f"MODELBUILD_DATA_{variable_suffix(name)}"):
            draft.stage.listed.append(name)
        else:
            links.append((name, path))
    written = set() if _knows(draft, "MODELBUILD_OUT") else _fixed_outputs(found, outputs)
    if links or written:
        below = _folders_above(files, [path for _, path in links])
        made = kept(written, {*found.data, *found.code})
        _run_in_copy(draft, links, made, _expected(found, written, links), below)


def _folders_above(files: Files, paths: Sequence[str]) -> str:
    """The end of the recipe's folder, so long that `..` of the paths does not lead out of it."""
    ups = max((path.split("/").count("..") for path in paths), default=0)
    parts = files.folder.relative_to(files.workspace).parts
    return "/".join(parts[len(parts) - ups :])


def _fixed_outputs(found: SeenFiles, outputs: Sequence[str]) -> set[str]:
    inside = (path for path in found.written if path[:2] != "..")
    return {path for path in inside if not any(path.startswith(each) for each in outputs)}


def _expected(
    found: SeenFiles, written: Collection[str], links: Sequence[tuple[str, str]]
) -> list[str]:
    """The nearest folders of what is written that the program found there.

    Not those that it made, for it may not expect them; nor those that come with the code.
    """
    nearest = {next(iter(_folders_of(path, found.folders)), "") for path in written} - {""}
    return sorted(
        folder
        for folder in nearest
        if not covered(folder, found.code) and not any(is_below(folder, p) for _, p in links)
    )


def _folders_of(path: str, known: Collection[str]) -> Iterator[str]:
    while path := os.path.dirname(path):
        if path in known:
            yield path


def _knows(draft: Draft, variable: str) -> bool:
    return any(each.text == variable for each in draft.script.literals)


def _run_in_copy(
    draft: Draft,
    links: Sequence[tuple[str, str]],
    outputs: Sequence[str],
    folders: Sequence[str],
    below: str,
) -> None:
    places = [(f"{{data.{name}}}", path) for name, path in links]
    expected = [f"{folder}/." for folder in folders]
    steps = in_copy(places, '"$@"', outputs, expected, below=below)
    draft.stage.command = [("sh", "-c", steps, "sh"), *draft.stage.command]
    does = [word for word, used in (("reads", links), ("writes", outputs)) if used]
    draft.stage.about_run = (
        f"{draft.script.path} {' and '.join(does)} at fixed places. So it runs in a copy "
        "of its code, in which data is linked, and what it writes is kept in the end. To do "
        'without, let it read os.environ["MODELBUILD_DATA_<NAME>"], and write below '
        'os.environ["MODELBUILD_OUT"].'
    )


def in_copy(
    links: Sequence[tuple[str, str]],
    command: str,
    outputs: Sequence[str],
    expected: Sequence[str] = (),
    *,
    below: str = "",
) -> str:
    """Shell that runs a command in a copy of the code.

    `links` are what a placeholder names and where it is looked for; `outputs` are kept, `expected`
    are those whose folders must be there first. `below` are folders around the copy, for links
    that begin with `..`.
    """
    copy = f"{_COPY}/{quoted(below)}" if below else _COPY
    steps = [f"mkdir -p {copy}"] if below else []
    steps += [f"cp -R --no-preserve=mode . {copy}", f"cd {copy}"]
    places = [*(path for _, path in links), *expected]
    folders = sorted({os.path.dirname(path) for path in places} - {""})
    if folders:
        steps.append(f"mkdir -p {' '.join(map(quoted, folders))}")
    steps += [f'ln -s "{what}" {quoted(path)}' for what, path in links]
    steps.append(command)
    if outputs:
        steps.append(f"cp -R --parents {' '.join(map(quoted, outputs))} {{out}}")
    return " && ".join(steps)


def leave_out_events(draft: Draft, found: SeenFiles) -> None:
    """TensorBoard's files have the time in name and content: no two builds would be the same."""
    if not any(map(is_of_tensorboard, found.written)):
        return
    clean = f"find {{out}} -name '{_OF_TENSORBOARD}*' -delete"
    if draft.stage.about_run:
        shell, option, steps, *rest = draft.stage.command[0]
        draft.stage.command[0] = (shell, option, f"{steps} && {clean}", *rest)
    else:
        draft.stage.command.insert(0, ("sh", "-c", f'"$@" && {clean}', "sh"))
    draft.stage.about_run += (
        " TensorBoard's files are removed in the end: time and host are in them, so that no "
        "two builds would be the same."
    )


def is_of_tensorboard(path: str) -> bool:
    return os.path.basename(path).startswith(_OF_TENSORBOARD)


def quoted(path: str) -> str:
    """For the shell, in a recipe; `*` stays a pattern."""
    text = "*".join(shlex.quote(part) if part else "" for part in path.split("*"))
    return text.replace("{", "{{").replace("}", "}}")
