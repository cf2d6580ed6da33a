"""A recipe with the stages of a dvc.yaml.

DVC runs a command where dvc.yaml lies, and outputs are files there. Where a command names all that
it reads and writes, its paths become placeholders; elsewhere it runs in a copy of the code, in
which data and the outputs of other stages are linked.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from modelbuild.draft.command_words import arguments
from modelbuild.draft.drafted import Draft, StageDraft, Surroundings, globs, mentions_cuda
from modelbuild.draft.dvc import DvcStage, Pipeline
from modelbuild.draft.dvc_templates import REFERENCE
from modelbuild.draft.files import Files
from modelbuild.draft.fixed_places import in_copy, quoted
from modelbuild.draft.script import read_script
from modelbuild.draft.seen_files import is_below
from modelbuild.errors import InvalidInputError
from modelbuild.locking.imports import reached_files
from modelbuild.spec.recipe import Stage

_OF_SHELLS = re.compile(r"[|&;<>()`*?\[\]#~\n\\]|\$(?!\{)")
_SOURCE = frozenset({".ipynb", ".py", ".r", ".sh"})


def draft_dvc(pipeline: Pipeline, path: Path, around: Surroundings) -> Draft:
    """Raises InvalidInputError where no stage runs a Python script that is here."""
    files = Files(around.folder, around.workspace)
    outs = {out: stage for stage in pipeline.stages for out in stage.outs}
    inputs = [dep for stage in pipeline.stages for dep in stage.deps if not _made(dep, outs)]
    code = {dep for dep in inputs if _is_code(dep, files)}
    words = [word for stage in pipeline.stages for word in _words(stage)]
    scripts = [word for word in dict.fromkeys([*words, *sorted(code)]) if word in around.files]
    if not scripts:
        raise InvalidInputError(
            f"{path}: no stage runs a Python script of this folder",
            hint="To write a recipe by hand: docs/recipe.md",
        )
    reached = {each for script in scripts for each in _reached(script, around)}
    script = read_script(scripts[0], {name: around.files[name] for name in sorted(reached)})
    others = {_folder(dep, files) for dep in code if dep not in around.files}
    others |= {file for stage in pipeline.stages for file in stage.param_files}
    drafted = Draft(
        script=script,
        device=around.device if mentions_cuda(script) else "cpu",
        threads=around.threads,
        reached=tuple(sorted(reached)),
        include=(*globs(sorted(reached), around.files), *sorted(others)),
        stages=[],
    )
    for dep in inputs:
        if dep not in code:
            drafted.data_name(dep)
    writer = _Writer(drafted, pipeline, outs, around.folder)
    drafted.stages = [writer.stage(each) for each in pipeline.stages]
    return drafted


def _words(stage: DvcStage) -> Iterator[str]:
    for command in stage.commands:
        for word in re.findall(r"[\w./-]+", command):
            yield os.path.normpath(os.path.join(stage.folder, word))


def _reached(script: str, around: Surroundings) -> set[str]:
    found = reached_files(Stage(name="any", run=("python", script)), around.files)
    return set(around.files) if found is None else found


def _made(path: str, outs: Mapping[str, DvcStage]) -> str | None:
    """The output that the path is, or lies in."""
    return next((out for out in outs if is_below(path, out)), None)


def _is_code(path: str, files: Files) -> bool:
    """What `dvc add` tracks is data; of the rest, programs, configuration, folders of programs."""
    tracked = [path, *map(str, PurePosixPath(path).parents)]
    if any((files.folder / f"{each}.dvc").is_file() for each in tracked if each != "."):
        return False
    place = files.folder / path
    if place.is_dir():
        return any(place.rglob("*.py"))
    return PurePosixPath(path).suffix.lower() in _SOURCE or files.is_configuration(path)


def _folder(path: str, files: Files) -> str:
    return f"{path}/**" if (files.folder / path).is_dir() else path


class _Writer:
    def __init__(
        self, drafted: Draft, pipeline: Pipeline, outs: Mapping[str, DvcStage], folder: Path
    ) -> None:
        self.draft = drafted
        self.folder = folder
        self.values = pipeline.values
        self.outs = outs
        self.plain = {stage.name: self._is_plain(stage) for stage in pipeline.stages}

    def stage(self, stage: DvcStage) -> StageDraft:
        drafted = StageDraft(name=stage.name, command=[])
        if self.plain[stage.name]:
            program, *rest = shlex.split(stage.commands[0])
            words = [self._word(stage, word) for word in rest]
            drafted.command = [(program, *words[:1])]
            drafted.arguments = [argument.all_words for argument in arguments(words[1:], ())]
        else:
            self._in_copy(stage, drafted)
        for dep in stage.deps:
            if dep in self.draft.data.values() and not (self.folder / dep).exists():
                drafted.notes.append(f"{dep} is not here: dvc pull {dep}")
        numbers = [each for each in stage.metrics if each.endswith(".json")]
        if numbers:
            drafted.metrics = self._place(stage, numbers[0])
        if len(stage.metrics) > 1 or len(numbers) < len(stage.metrics):
            drafted.notes.append(
                f"Of the metrics {', '.join(stage.metrics)} only one JSON file can be `metrics`; "
                "the others are kept as files."
            )
        if stage.param_files:
            drafted.about_run += (
                f" It reads {', '.join(stage.param_files)} itself, which is code here: a change "
                "builds all stages again that see it."
            )
        return drafted

    # -- commands --------------------------------------------------------------------------------

    def _is_plain(self, stage: DvcStage) -> bool:
        """Whether it is one command without a shell, which names every path that it is given."""
        (first, *others) = stage.commands
        if others or _OF_SHELLS.search(first) or stage.folder != ".":
            return False
        words = {REFERENCE.sub(self._text, part) for part in _parts(shlex.split(first))}
        data = {*self.draft.data.values(), *self.outs}
        needed = [dep for dep in stage.deps if _within(dep, data)]
        names = [os.path.basename(out) for out in stage.outs]
        return words.issuperset([*needed, *stage.outs]) and len({*names}) == len(names)

    def _word(self, stage: DvcStage, word: str) -> str:
        flag, equals, value = word.rpartition("=")
        path = str(PurePosixPath(REFERENCE.sub(self._text, value))) if value else ""
        place = self._path(stage, path)
        return f"{flag}{equals}{place}" if place else self._filled(word)

    def _path(self, stage: DvcStage, path: str) -> str | None:
        if path in stage.outs:
            return f"{{out}}/{self._place(stage, path)}"
        made = _made(path, self.outs)
        if made:
            maker = self.outs[made]
            rest = path[len(made) :]
            return f"{{stages.{maker.name}}}/{self._place(maker, made)}{rest}"
        for name, known in self.draft.data.items():
            if known == path:
                return f"{{data.{name}}}"
        return None

    def _place(self, stage: DvcStage, out: str) -> str:
        """Where in the stage's output folder a file of its lies."""
        return os.path.basename(out) if self.plain[stage.name] else out

    def _in_copy(self, stage: DvcStage, drafted: StageDraft) -> None:
        links = []
        for dep in stage.deps:
            place = self._path(stage, dep)
            if place:
                links.append((place, dep))
        commands = [self._filled(each.strip()) for each in stage.commands]
        expected = list(stage.outs)
        if stage.folder != ".":
            commands.insert(0, f"cd {quoted(stage.folder)}")
            expected.append(f"{stage.folder}/.")
        command = f"( {' && '.join(commands)} )"
        drafted.command = [("sh", "-c", in_copy(links, command, stage.outs, expected))]
        drafted.about_run = (
            "DVC runs it where its files lie, so it runs in a copy of the code, in which its "
            "inputs are linked; its outputs are kept in the end."
        )

    # -- values ----------------------------------------------------------------------------------

    def _text(self, match: re.Match[str]) -> str:
        return str(self.values.get(match[1], match[0]))

    def _filled(self, text: str) -> str:
        """With `{params.X}` for `${X}`; other braces stay what they are."""
        parts = REFERENCE.split(text)
        escaped = [part.replace("{", "{{").replace("}", "}}") for part in parts[::2]]
        names = [self._param(name) for name in parts[1::2]]
        return "".join(a + b for a, b in zip(escaped, [*names, ""], strict=True))

    def _param(self, name: str) -> str:
        value = self.values.get(name)
        if not isinstance(value, bool | str | int | float) or not re.fullmatch(r"[\w.-]+", name):
            raise InvalidInputError(
                f"'${{{name}}}' in a command can't be taken over",
                facts=[("wanted", "a number or a text of params.yaml"), ("found", str(value))],
                hint="To go on: write it out.",
            )
        if isinstance(value, bool):
            return "true" if value else "false"
        self.draft.params[name] = value
        return f"{{params.{name}}}"


def _parts(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        yield str(PurePosixPath(word)) if word else word
        yield str(PurePosixPath(word.rpartition("=")[2]))


def _within(path: str, places: set[str]) -> bool:
    return any(is_below(path, each) for each in places)
