"""A dvc.yaml with its params.yaml, as far as a recipe can say the same.

What a recipe can't say is refused by name: a guess would build something else than DVC does.
Format: the schema that DVC publishes for dvc.yaml; YAML 1.2, as DVC reads it (`1e-3` is a number).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from modelbuild.draft.drafted import plain
from modelbuild.draft.dvc_templates import (
    REFERENCE,
    Template,
    as_text,
    flat,
    normalised,
    written_out,
)
from modelbuild.errors import InvalidInputError, ModelbuildError
from modelbuild.spec.canonical import Json

PARAMS = "params.yaml"
_KNOWN = frozenset({"cmd", "deps", "desc", "meta", "metrics", "outs", "params", "plots", "wdir"})
_OF_STAGE = {
    "vars": "move them to the top of dvc.yaml",
    "frozen": "remove it: a stage is built again only when what it reads has changed",
    "always_changed": "remove it: a stage is built again only when what it reads has changed",
}
_AT_TOP = frozenset({"stages", "vars", "metrics", "plots", "params", "artifacts"})
_WITHOUT_MEANING = frozenset({"cache", "desc", "push", "remote", "type", "labels", "meta"})
"""How DVC keeps an output, which says nothing of what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DvcStage:
    """Paths are relative to the recipe and have their `${}` filled in."""

    name: str
    """Of the stage in the recipe: `train-us` for DVC's `train@us`."""
    description: str
    folder: str
    """Where its commands run."""
    commands: tuple[str, ...]
    """As they are written, with `${}` but for those that only this stage knows."""
    deps: tuple[str, ...]
    outs: tuple[str, ...]
    """Plots and metrics among them."""
    metrics: tuple[str, ...]
    param_files: tuple[str, ...]
    """That it reads itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pipeline:
    stages: tuple[DvcStage, ...]
    values: Mapping[str, Json]
    """What `${a.b}` stands for, by dotted name."""


def read_pipeline(path: Path, folder: Path) -> Pipeline:
    """For a recipe in `folder`, in which the dvc.yaml lies, or below it.

    Raises InvalidInputError, which names what can't be taken over.
    """
    base = path.resolve().parent.relative_to(folder).as_posix()
    document = _load(path)
    for key in document.keys() - _AT_TOP:
        _refuse(path, f"'{key}' can't be taken over", "leave it out, or write recipe.toml by hand")
    values = dict(flat(_variables(path, document), ""))
    stages = document.get("stages")
    if not isinstance(stages, dict) or not stages:
        _refuse(path, "there are no stages", "name a file with stages")
    found: dict[str, DvcStage] = {}
    for name, table in stages.items():
        refuse = _Reader(path, base, Template(name=str(name), table=table), values).refuse
        for template in written_out(str(name), table, values, refuse):
            stage = _Reader(path, base, template, values).stage()
            if stage.name in found:
                refuse(f"a second stage would be called '{stage.name}'", "rename one")
            found[stage.name] = stage
    return Pipeline(stages=tuple(found.values()), values=values)


def _load(path: Path) -> dict[str, Any]:
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise ModelbuildError(
            "what reads YAML is not installed",
            hint=f"It belongs beside modelbuild: {sys.executable} -m pip install ruamel.yaml",
        ) from None
    try:
        content = YAML(typ="safe", pure=True).load(path.read_bytes())
    except YAMLError as error:
        raise InvalidInputError(f"{path}: not YAML", facts=[("because", str(error))]) from None
    if not isinstance(content, dict):
        _refuse(path, "not a table of keys", "name a dvc.yaml")
    return content


def _refuse(path: Path, what: str, instead: str, found: object = None) -> NoReturn:
    facts = [("found", str(found))] if found is not None else []
    raise InvalidInputError(f"{path}: {what}", facts=facts, hint=f"To go on: {instead}.")


def _variables(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """params.yaml is read without being named."""
    found: dict[str, Any] = {}
    default = path.parent / PARAMS
    files = [each for each in document.get("vars", ()) if isinstance(each, str)]
    if default.is_file():
        found |= _load(default)
    for name in files:
        if PurePosixPath(name).suffix not in (".yaml", ".yml", ".json") or ":" in name:
            _refuse(path, f"'vars: {name}' can't be taken over", "name a whole YAML or JSON file")
        found |= _load(path.parent / name)
    for each in document.get("vars", ()):
        found |= each if isinstance(each, dict) else {}
    return found


class _Reader:
    """Reads one stage; every error names it."""

    def __init__(
        self, path: Path, base: str, template: Template, values: Mapping[str, Json]
    ) -> None:
        self._path = path
        self._template = template
        self._values = {**values, **template.own}
        self._folder = base
        """On which paths are based: that of dvc.yaml, then of `wdir`."""

    def stage(self) -> DvcStage:
        table, name = self._template.table, self._template.name
        if not isinstance(table, dict):
            self.refuse("is not a table of keys", "see DVC's documentation")
        for key in table.keys() & _OF_STAGE.keys():
            self.refuse(f"'{key}' can't be taken over", _OF_STAGE[key])
        for key in table.keys() - _KNOWN:
            self.refuse(f"'{key}' can't be taken over", "leave it out")
        self._folder = self._path_of("wdir", table.get("wdir") or ".")
        commands = table.get("cmd")
        commands = [commands] if isinstance(commands, str) else commands
        if not isinstance(commands, list) or not all(isinstance(each, str) for each in commands):
            self.refuse("has no 'cmd' of text", "write the command that it runs")
        metrics = self._paths(table, "metrics")
        outs = (*self._paths(table, "outs"), *metrics, *self._paths(table, "plots"))
        return DvcStage(
            name=plain(name)[:80].strip("-._") or "stage",
            description=str(table.get("desc", "")),
            folder=self._folder,
            commands=tuple(REFERENCE.sub(self._in_command, each) for each in commands),
            deps=self._paths(table, "deps"),
            outs=tuple(dict.fromkeys(outs)),
            metrics=metrics,
            param_files=self._param_files(table.get("params") or []),
        )

    def refuse(self, what: str, instead: str) -> NoReturn:
        _refuse(self._path, f"stage '{self._template.name}': {what}", instead)

    def _paths(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        entries = table.get(key) or ()
        if isinstance(entries, str):
            self.refuse(f"'{key}' is no list", "write a list of paths")
        return tuple(self._path_of(key, each) for each in entries)

    def _path_of(self, key: str, entry: object) -> str:
        if isinstance(entry, dict) and len(entry) == 1:
            ((entry, options),) = entry.items()
            for option in (options or {}).keys() - _WITHOUT_MEANING:
                if key != "plots":  # how they are drawn
                    self.refuse(f"'{option}' of {key} '{entry}' can't be taken over", "remove it")
        if not isinstance(entry, str):
            self.refuse(f"'{key}' has something that is no path", "write paths only")
        path = REFERENCE.sub(self._value, entry)
        if "://" in path or path.startswith(("/", "~")):
            self.refuse(f"{key} '{path}' lies elsewhere", "bring it into the workspace")
        path = os.path.normpath(os.path.join(self._folder, path))
        if path.partition("/")[0] == "..":
            self.refuse(
                f"{key} '{path}' leads out of the folder",
                "bring it into the folder, or write the recipe in a folder above: modelbuild init"
                f" FOLDER --from {self._path}",
            )
        return path

    def _value(self, match: re.Match[str]) -> str:
        value = self._values.get(normalised(match[1]))
        if not isinstance(value, str | int | float):
            self.refuse(f"'{match[0]}' is no text and no number", "write it out")
        return as_text(value)

    def _in_command(self, match: re.Match[str]) -> str:
        """What the whole pipeline knows stays a reference, and becomes a parameter."""
        name = normalised(match[1])
        if name in self._template.known_as:
            return f"${{{self._template.known_as[name]}}}"
        listed = any(part.isdigit() for part in name.split("."))
        if name in self._template.own or (listed and name in self._values):
            return self._value(match)
        return f"${{{name}}}"

    def _param_files(self, entries: list[object]) -> tuple[str, ...]:
        files = {PARAMS: None} if any(isinstance(each, str) for each in entries) else {}
        for each in entries:
            files |= dict.fromkeys(each) if isinstance(each, dict) else {}
        return tuple(self._path_of("params", each) for each in files)
