"""A recipe for a command that was run once and observed.

The command stays as it is, but for what must differ in a stage: paths that were read become
data, paths that were written `{out}`, numbers and names parameters. A script that reads or
writes at fixed places runs in a copy of its code, where data is linked.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Sequence
from math import isfinite
from pathlib import Path, PurePosixPath

from modelbuild.draft.command_words import Argument, arguments
from modelbuild.draft.drafted import (
    DATA,
    DEVICE,
    SEED,
    THREADS,
    Draft,
    StageDraft,
    Surroundings,
    globs,
    mentions_cuda,
    plain,
    stage_name,
)
from modelbuild.draft.files import Files
from modelbuild.draft.fixed_places import leave_out_events, run_where_it_is_used_to
from modelbuild.draft.module_names import import_folders
from modelbuild.draft.observe import Observation
from modelbuild.draft.observed_notes import notes
from modelbuild.draft.own_modules import (
    imported_from_elsewhere,
    not_to_be_had,
    note_on_elsewhere,
)
from modelbuild.draft.script import read_script
from modelbuild.draft.seen_files import SeenFiles, covered, is_below, sort_files
from modelbuild.errors import ModelbuildError
from modelbuild.locking.imports import reached_files
from modelbuild.spec.recipe import Stage
from modelbuild.spec.recipe_hardware import SEEDS
from modelbuild.spec.references import variable_suffix

_METRICS = re.compile(r"metric|result|score|eval|summary", re.IGNORECASE)
_LARGEST_METRICS = 1_000_000
_PYTHON = re.compile(r"python[\d.]*")


def draft_observed(command: Sequence[str], seen: Observation, around: Surroundings) -> Draft:
    """The draft for a command that ran in the recipe's folder."""
    files = Files(around.folder, around.workspace)
    found = sort_files(seen, files)
    path = _script(command, seen, found, around)
    stage = Stage(name="train", run=("python", path))
    reached = reached_files(stage, around.files)
    ran = {each for each in found.code if each in around.files}
    paths = sorted({*ran, *(reached or ())})
    script = read_script(path, {name: around.files[name] for name in paths})
    elsewhere = not_to_be_had(command, script, imported_from_elsewhere(seen, around), around)
    of_command = [str(word) for word in command if covered(_relative(word, around), found.code)]
    others = {_relative(word, around) for word in of_command} | (found.code - ran)
    drafted = Draft(
        script=script,
        device=around.device if mentions_cuda(script) else "cpu",
        threads=around.threads,
        reached=tuple(paths),
        include=(
            *globs(paths, around.files),
            *sorted(p for p in {*others, *found.configuration} - {*paths} if p[:2] != ".."),
        ),
        stages=[StageDraft(name=stage_name(path), command=[])],
    )
    if reached is not None and not ran <= reached:
        drafted.stage.code = drafted.include
    writer = _Writer(drafted, around, seen, found, files)
    writer.write(command)
    if elsewhere:
        drafted.elsewhere = elsewhere
        drafted.stage.notes.append(note_on_elsewhere(path, elsewhere))
    drafted.stage.notes += notes(drafted, seen, found, files, writer.located)
    return drafted


def _relative(word: str, around: Surroundings) -> str:
    return os.path.relpath(os.path.join(around.folder, word), around.folder)


def _script(
    command: Sequence[str], seen: Observation, found: SeenFiles, around: Surroundings
) -> str:
    """The first program of the recipe's folder that Python ran."""
    ran = [os.path.relpath(path, around.folder) for path in seen.scripts]
    for word in command:
        name = word.replace(".", "/")
        ran += [f"{name}.py", f"{name}/__main__.py"]
    own = [path for path in ran if path in around.files and path in found.code]
    if own:
        return own[0]
    above = [path for path in ran if path.startswith("../") and path in found.code]
    raise ModelbuildError(
        f"{shlex.join(command)} ran no Python script below {around.folder}",
        facts=[("found", ", ".join(above))] if above else [],
        hint="A recipe's code lies at or below its folder: give the command there."
        if above
        else "Python is not observed where it is started with -I, -E or -S, or with a PYTHONPATH "
        "of its own.",
    )


class _Writer:
    """Goes through the command's words, and fills the draft."""

    def __init__(
        self,
        drafted: Draft,
        around: Surroundings,
        seen: Observation,
        found: SeenFiles,
        files: Files,
    ) -> None:
        self.draft = drafted
        self.around = around
        self.seen = seen
        self.found = found
        self.files = files
        self.outputs: list[str] = []
        """Paths of the command line that were written to, without those that lie below others."""
        self.located: list[str] = []
        """Paths outside of the workspace that became data."""

    def write(self, command: Sequence[str]) -> None:
        head, rest = self._parted(command)
        words = arguments(rest, self.draft.script.options)
        places = [path for each in words if (path := self._output_path(each)) is not None]
        self.outputs = [p for p in places if not any(is_below(p, o) for o in {*places} - {p})]
        taken = [word for each in words if (word := self._argument(each))]
        self.draft.stage.arguments = taken
        self.draft.stage.command = [tuple(head)]
        beside = "." if "-m" in head else os.path.dirname(self.draft.script.path) or "."
        own = {path for path in self.found.code if path[:2] != ".."} - {self.draft.script.path}
        self.draft.stage.search = sorted(import_folders(self.seen.modules, own) - {beside})
        listed = [os.path.relpath(path, self.around.folder) for path in self.seen.listed]
        run_where_it_is_used_to(self.draft, self.found, listed, self.outputs, self.files)
        leave_out_events(self.draft, self.found)
        self._metrics()

    def _parted(self, command: Sequence[str]) -> tuple[list[str], list[str]]:
        """The words up to the script, and its arguments."""
        script = self.draft.script.path
        module = script.removesuffix(".py").removesuffix("/__main__").replace("/", ".")
        ends = [
            at
            for at, word in enumerate(command)
            if _relative(word, self.around) == script
            or (word == module and at and command[at - 1] == "-m")
        ]
        end = ends[0] + 1 if ends else 1
        head = [_escaped(word) for word in command[:end]]
        if _PYTHON.fullmatch(PurePosixPath(head[0]).name):
            head[0] = "python"
        if ends and head[-1] != module:
            head[-1] = script
        return head, list(command[end:])

    # -- arguments -------------------------------------------------------------------------------

    def _path(self, value: str) -> str:
        return _relative(value, self.around)

    def _output_path(self, argument: Argument) -> str | None:
        """Where the argument is a place that was written to: that file, folder, or prefix."""
        value = argument.value
        if not value or _number(value) is not None or len(value) > 500:
            return None
        path = self._path(value)
        reads = covered(path, {*self.found.data, *self.found.code})
        downloads = DATA.fullmatch(argument.name.lower()) and (reads or self.seen.hosts)
        if downloads or (path == "." and not argument.given):
            return None
        if covered(path, self.found.written):
            return path
        is_prefix = argument.flag and len(value) > 2 and not value.endswith("/")
        begun = any(each.startswith(path) for each in self.found.written)
        return path if is_prefix and begun else None

    def _argument(self, argument: Argument) -> tuple[str, ...]:
        """Its words in the recipe; none for an option that keeps its default."""
        value = argument.value
        if value is None:
            return (_escaped(argument.flag or ""),)
        becomes = self._becomes(argument, value)
        if becomes is None and argument.given:
            becomes = self._param(argument, value) or _escaped(value)
        return argument.words(becomes) if becomes is not None else ()

    def _becomes(self, argument: Argument, value: str) -> str | None:
        if SEED.fullmatch(argument.name) and value.isdecimal() and int(value) in SEEDS:
            self.draft.seed = int(value)
            return "{seed}"
        if THREADS.fullmatch(argument.name) and value.isdecimal() and int(value) > 0:
            self.draft.threads = int(value)
            return "{threads}"
        if DEVICE.fullmatch(argument.name) and argument.given:
            return _escaped(value)
        if self._output_path(argument) is not None:
            return self._place_below_out(self._path(value))
        path = self._path(value)
        if len(value) < 500 and covered(path, self.found.data) and path != ".":
            return f"{{data.{self.draft.data_name(path)}}}"
        if len(value) < 500 and covered(path, self.found.outside) and "/" in value:
            return f"{{data.{self._outside_name(path)}}}"
        known = {*self.found.code, *self.found.configuration}
        return _escaped(value) if argument.given and path in known else None

    def _place_below_out(self, path: str) -> str:
        """One folder is the output itself; of several places each lies below it."""
        root = next(each for each in self.outputs if is_below(path, each))
        rest = os.path.relpath(path, root)
        is_folder = any(each.startswith(f"{root}/") for each in self.found.written) or root == "."
        parts = [] if len(self.outputs) == 1 and is_folder else [plain(os.path.basename(root))]
        return "/".join(["{out}", *parts, *([] if rest == "." else [rest])])

    def _outside_name(self, path: str) -> str:
        """A location of each user's own: the folder, or the folder of the file."""
        place = self.around.folder / path
        folder = place if place.is_dir() else place.parent
        name = plain(folder.resolve().name) or "data"
        self.draft.outside[name] = "" if place.is_dir() else place.name
        self.located.append(path)
        return name

    def _param(self, argument: Argument, value: str) -> str | None:
        name = argument.name.replace(".", "-")
        if argument.flag is None or not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not value:
            return None
        known = {variable_suffix(each): each for each in self.draft.params}
        if variable_suffix(name) in known:
            return None
        number = _number(value)
        self.draft.params[name] = value if number is None else number
        return f"{{params.{name}}}"

    # -- metrics ---------------------------------------------------------------------------------

    def _metrics(self) -> None:
        """The small JSON file of numbers that was written, best one that is called so."""
        candidates = [path for path in sorted(self.found.written) if self._has_numbers(path)]
        candidates.sort(key=lambda path: _METRICS.search(os.path.basename(path)) is None)
        for path in candidates[:1]:
            named = any(is_below(path, each) for each in self.outputs)
            place = self._place_below_out(path) if named else f"{{out}}/{path}"
            if path[:2] != ".." or named:
                self.draft.stage.metrics = place.removeprefix("{out}/")

    def _has_numbers(self, path: str) -> bool:
        place = Path(self.around.folder, path)
        if place.suffix != ".json" or place.stat().st_size > _LARGEST_METRICS:
            return False
        try:
            content = json.loads(place.read_bytes())
        except ValueError:
            return False
        values = content.values() if isinstance(content, dict) else []
        numbers = [each for each in values if type(each) in (int, float)]
        return bool(numbers) and all(map(isfinite, numbers))


def _number(text: str) -> int | float | None:
    """A number that TOML holds and that is the same to whoever reads it again."""
    if re.fullmatch(r"-?(0|[1-9]\d{0,17})", text):
        return int(text)
    if re.fullmatch(r"-?\d*\.?\d+(e[+-]?\d+)?|-?\d+\.", text, re.IGNORECASE):
        value = float(text)
        leading = re.match(r"-?0\d", text)
        return value if isfinite(value) and not leading else None
    return None


def _escaped(word: str) -> str:
    return word.replace("{", "{{").replace("}", "}}")
