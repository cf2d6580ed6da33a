"""A recipe for a training script, guessed from its text and the files around it.

What can't be guessed is said in a note, which stands in the recipe too, where it is to be mended.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from math import isfinite
from pathlib import PurePosixPath

from modelbuild.draft.drafted import (
    DATA,
    DEVICE,
    PLACE,
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
from modelbuild.draft.own_modules import (
    folders_below,
    found_above,
    note_on_above,
    own_modules,
    provided,
)
from modelbuild.draft.script import Literal, Option, read_script
from modelbuild.draft.seen_files import is_below
from modelbuild.locking.imports import reached_files
from modelbuild.spec.recipe import Stage
from modelbuild.spec.recipe_hardware import SEEDS
from modelbuild.spec.references import variable_suffix

_OUT = re.compile(
    rf"out|output|save|dest|destination|(out|output|outputs|save|dest)[-_]?{PLACE}"
    rf"|(checkpoint|checkpoints|ckpt|ckpts|log|logs|logging|result|results|work|run|export|artifact"
    rf"|artifacts)[-_]?{PLACE}|model[-_]?(out|output|save[-_]?{PLACE})"
)


def draft(path: str, around: Surroundings, trained: Draft | None = None) -> Draft:
    """A draft for the script at `path`, relative to the recipe.

    With `trained`, of a script that reads what that one writes: data and parameters are shared.
    """
    reached, search = _reached(path, around)
    paths = sorted(reached if reached is not None else around.files)
    script = read_script(path, {name: around.files[name] for name in paths})
    drafted = Draft(
        script=script,
        device=around.device if mentions_cuda(script) else "cpu",
        threads=around.threads,
        reached=tuple(paths),
        include=tuple(globs(paths, around.files) if reached is not None else ("**/*.py",)),
        stages=[StageDraft(name=stage_name(path), command=[("python", path)])],
    )
    folder = os.path.dirname(path)
    if folder and any(not is_below(each, folder) for each in paths):
        search = [".", *search]
    drafted.stage.search = search
    drafted.elsewhere = found_above(script, own_modules(drafted), around)
    if drafted.elsewhere:
        drafted.stage.notes.append(note_on_above(path, drafted.elsewhere, around))
    if trained is not None:
        drafted.data, drafted.params, drafted.seed = trained.data, trained.params, trained.seed
    _Reader(drafted, around, _outputs(trained) if trained else {}).read()
    return drafted


def _reached(path: str, around: Surroundings) -> tuple[set[str] | None, list[str]]:
    """The files that the script reaches, None where that can't be told, and where else than
    beside it and in the recipe's folder it finds modules."""
    stage = Stage(name="train", run=("python", path))
    reached = reached_files(stage, around.files)
    known = {name: around.files[name] for name in reached or around.files}
    search = folders_below(read_script(path, known), provided(path, known), around)
    if reached is not None and search:
        found = replace(stage, env={"PYTHONPATH": ":".join(search)})
        reached = reached_files(found, around.files)
    return reached, search


def _outputs(trained: Draft) -> dict[str, str]:
    """The paths that options of a script write to by default, and where another stage has them."""
    given = dict(each for each in trained.stage.arguments if len(each) == 2)
    found = {}
    for option in trained.script.options:
        place = given.get(option.flag or "", "")
        if isinstance(option.default, str) and place.startswith("{out}"):
            made = place.replace("{out}", f"{{stages.{trained.stage.name}}}")
            found[option.default.removeprefix("./")] = made
    return found


class _Reader:
    """Goes through a script's options and strings, and fills the draft."""

    def __init__(self, drafted: Draft, around: Surroundings, upstream: Mapping[str, str]) -> None:
        self.draft = drafted
        self.upstream = upstream
        """Paths that another stage writes, to what stands for them."""
        self.script = drafted.script
        self.files = Files(around.folder, around.workspace)
        self.written = {literal.text.removeprefix("./") for literal in self.script.writes}

    def read(self) -> None:
        for option in self.script.options:
            made = self._made(option.default)
            if made:
                self._pass(option, made)
            else:
                self._option(option)
        named = self._literals()
        used = {*self.draft.data.values(), *self.written}
        self.draft.include += tuple(
            sorted(named | self.files.configuration_beside(self.script.path, used))
        )
        self._output()
        own = (each.text for each in self.script.literals if each.file == self.script.path)
        if any(text.lstrip("./") == "metrics.json" for text in own):
            self.draft.stage.metrics = "metrics.json"

    def _note(self, text: str) -> None:
        self.draft.stage.notes.append(text)

    # -- the command line ------------------------------------------------------------------------

    def _option(self, option: Option) -> None:
        """The rules in their order; an option that none of them takes keeps its default."""
        if not option.takes_one:
            if option.required:
                self._missing(option)
            return
        if SEED.fullmatch(option.name):
            if type(option.default) is int and option.default in SEEDS:
                self.draft.seed = option.default
            self._pass(option, "{seed}")
        elif THREADS.fullmatch(option.name):
            self._pass(option, "{threads}")
        elif DEVICE.fullmatch(option.name) and isinstance(option.default, str):
            self._pass(option, self.draft.device)
        elif self._is_output(option):
            self._pass(option, self._place_below_out(option))
        elif path := self._existing(option.default):
            if not self.files.is_configuration(path):
                self._pass(option, f"{{data.{self.draft.data_name(path)}}}")
        elif DATA.fullmatch(option.name.lower()) and not isinstance(option.default, int | float):
            self._absent_data(option)
        elif not self._param(option) and option.required:
            self._missing(option)

    def _made(self, default: object) -> str | None:
        """By another stage: that file, or one in a folder that it writes to."""
        path = default.removeprefix("./") if isinstance(default, str) else ""
        for known, place in self.upstream.items():
            if path == known and PurePosixPath(known).suffix:
                return place
            if path.startswith(f"{known}/"):
                return place + path[len(known) :]
        return None

    def _pass(self, option: Option, value: str) -> None:
        self.draft.stage.arguments.append((option.flag, value) if option.flag else (value,))

    def _missing(self, option: Option) -> None:
        shown = option.flag or option.name
        self._note(f"{self.script.path} needs {shown}, which has no default: add it to `run`.")

    def _existing(self, default: object) -> str | None:
        """As seen from the recipe's folder, or else from the script's, where it may be run."""
        path = self.files.existing(default)
        if path is None and isinstance(default, str) and not os.path.isabs(default):
            beside = os.path.join(os.path.dirname(self.script.path), default)
            path = self.files.existing(os.path.normpath(beside)) if default else None
        return path

    def _is_output(self, option: Option) -> bool:
        if option.default is not None and not isinstance(option.default, str):
            return False
        return option.saved_to or _OUT.fullmatch(option.name.lower()) is not None

    def _place_below_out(self, option: Option) -> str:
        """The first folder is the output itself; files and further folders lie below it."""
        default = option.default if isinstance(option.default, str) else ""
        name = PurePosixPath(default).name
        taken = any("{out}" in argument for argument in self.draft.stage.arguments)
        if PurePosixPath(name).suffix or option.name.lower().endswith("file"):
            return f"{{out}}/{plain(name) or option.name}"
        return f"{{out}}/{plain(name) or option.name}" if taken else "{out}"

    def _absent_data(self, option: Option) -> None:
        """Data is wanted, and the script does not say which; or it is not there."""
        found = self._only_data(option)
        if found:
            self._pass(option, f"{{data.{self.draft.data_name(found)}}}")
            return
        shown = option.flag or option.name
        named = f" ({option.default!r} is not here)" if option.default else ""
        self._note(
            f"{self.script.path} reads data from {shown}{named}: declare it as [data.NAME], "
            f"and pass {{data.NAME}} in `run`."
        )

    def _only_data(self, option: Option) -> str | None:
        """The one thing in the folder that can be meant."""
        folders = [name for name in ("data", "dataset", "datasets") if self.files.existing(name)]
        if re.search(r"dir|folder|root", option.name.lower()):
            return folders[0] if len(folders) == 1 else None
        names = [
            path for place in ("", *folders) for path in self.files.data_in(place, self.written)
        ]
        wants_file = isinstance(option.default, str) and PurePosixPath(option.default).suffix
        whole = folders[0] if len(folders) == 1 and not wants_file else None
        return names[0] if len(names) == 1 else whole

    def _param(self, option: Option) -> bool:
        value = option.default
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            return False
        if not isinstance(value, str) and not (isfinite(value) and abs(value) < 2**63):
            return False
        if not re.fullmatch(r"[A-Za-z0-9_-]+", option.name) or self._clashes(option.name, value):
            return False
        self.draft.params[option.name] = value
        self._pass(option, f"{{params.{option.name}}}")
        return True

    def _clashes(self, name: str, value: str | int | float) -> bool:
        """With another parameter; a stage before may have the same one."""
        if name in self.draft.params:
            return repr(self.draft.params[name]) != repr(value)
        return variable_suffix(name) in map(variable_suffix, self.draft.params)

    # -- files that the program names ------------------------------------------------------------

    def _literals(self) -> set[str]:
        """Declare the data that is named; returns the configuration files."""
        configuration = set()
        defaults = {str(option.default) for option in self.script.options}
        named = [each for each in self.script.literals if each.text not in defaults]
        paths = {path for each in named if (path := self.files.existing(each.text))} - self.written
        parts = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
        parts |= {str(parent) for path in defaults for parent in PurePosixPath(path).parents}
        for literal in named:
            path = self.files.existing(literal.text)
            if path not in paths - parts:
                continue
            if self.files.is_configuration(path):
                configuration.add(path)
            elif self._is_named_data(literal, path):
                name = self.draft.data_name(path)
                self.draft.stage.listed.append(name)
                self._note(
                    f"{literal.file}:{literal.line} reads {literal.text}: a stage finds data "
                    f'elsewhere. Let it read os.environ.get("MODELBUILD_DATA_'
                    f'{variable_suffix(name)}", "{literal.text}").'
                )
        return configuration

    def _is_named_data(self, literal: Literal, path: str) -> bool:
        """A word may be a folder's name by chance."""
        known = [PurePosixPath(each) for each in self.draft.data.values()]
        if any(PurePosixPath(path).is_relative_to(each) for each in known):
            return False
        return self.files.folder.joinpath(path).is_file() or "/" in literal.text or path == "data"

    def _output(self) -> None:
        """Say how the output gets out, where the command line does not show it."""
        if any(literal.text == "MODELBUILD_OUT" for literal in self.script.literals):
            return
        places: dict[str, list[str]] = {}
        for each in sorted(self.script.writes, key=lambda each: (each.file, each.line)):
            if any(text.startswith(f"{each.text}/") for text in self.written):
                continue  # the folder of a file that is written, too
            places.setdefault(each.file, []).append(f"{each.text} (line {each.line})")
        for file, written in places.items():
            self._note(
                f"{file} writes {', '.join(dict.fromkeys(written))}: a stage writes to its output "
                'folder only. Put what is to be kept below os.environ.get("MODELBUILD_OUT", ".").'
            )
        passed = any(
            "{out}" in word for argument in self.draft.stage.arguments for word in argument
        )
        if self.script.reads_argv and not self.script.options:
            self._note(f"{self.script.path} reads sys.argv: write its arguments into `run`.")
        elif not passed and not places:
            self._note(
                f"{self.script.path} has no option for its output: let it write below "
                'os.environ.get("MODELBUILD_OUT", ".").'
            )
