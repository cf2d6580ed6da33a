"""A dvc.yaml with its params.yaml, as far as a recipe can say the same.

What a recipe can't say is refused by name: a guess would build something else than DVC does.
Format: the schema that DVC publishes for dvc.yaml; YAML 1.2, as DVC reads it (`1e-3` is a number).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from modelbuild.errors import InvalidInputError, ModelbuildError
from modelbuild.spec.canonical import Json

PARAMS = "params.yaml"
REFERENCE = re.compile(r"\$\{\s*([^}]*?)\s*\}")
_KNOWN = frozenset({"cmd", "deps", "desc", "meta", "metrics", "outs", "params", "plots", "wdir"})
_OF_STAGE = {
    "foreach": "write its stages one by one",
    "matrix": "write its stages one by one",
    "vars": "move them to the top of dvc.yaml",
    "frozen": "remove it: a stage is built again only when what it reads has changed",
    "always_changed": "remove it: a stage is built again only when what it reads has changed",
}
_AT_TOP = frozenset({"stages", "vars", "metrics", "plots", "params", "artifacts"})
_WITHOUT_MEANING = frozenset({"cache", "desc", "push", "remote", "type", "labels", "meta"})
"""How DVC keeps an output, which says nothing of what it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DvcStage:
    """Paths are relative to dvc.yaml and have their `${}` filled in."""

    name: str
    description: str
    commands: tuple[str, ...]
    """As they are written, with `${}`."""
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


def read_pipeline(path: Path) -> Pipeline:
    """Raises InvalidInputError, which names what can't be taken over."""
    document = _load(path)
    for key in document.keys() - _AT_TOP:
        _refuse(path, f"'{key}' can't be taken over", "leave it out, or write recipe.toml by hand")
    values = dict(_flat(_variables(path, document), ""))
    stages = document.get("stages")
    if not isinstance(stages, dict) or not stages:
        _refuse(path, "there are no stages", "name a file with stages")
    return Pipeline(
        stages=tuple(_Reader(path, name, values).stage(each) for name, each in stages.items()),
        values=values,
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError
    except ImportError:
        raise ModelbuildError(
            "what reads YAML is not installed",
            hint="To install it: pip install 'modelbuild[dvc]'",
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


def _flat(values: Mapping[str, Any], before: str) -> Iterator[tuple[str, Json]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        yield f"{before}{name}", value


class _Reader:
    """Reads one stage; every error names it."""

    def __init__(self, path: Path, name: str, values: Mapping[str, Json]) -> None:
        self._path = path
        self._name = name
        self._values = values

    def stage(self, table: object) -> DvcStage:
        if not isinstance(table, dict):
            self._refuse("is not a table of keys", "see DVC's documentation")
        for key in table.keys() & _OF_STAGE.keys():
            self._refuse(f"'{key}' can't be taken over", _OF_STAGE[key])
        for key in table.keys() - _KNOWN:
            self._refuse(f"'{key}' can't be taken over", "leave it out")
        if str(table.get("wdir", ".")).rstrip("/") != ".":
            self._refuse("'wdir' can't be taken over", "write paths and command as seen from here")
        commands = table.get("cmd")
        commands = [commands] if isinstance(commands, str) else commands
        if not isinstance(commands, list) or not all(isinstance(each, str) for each in commands):
            self._refuse("has no 'cmd' of text", "write the command that it runs")
        metrics = self._paths(table, "metrics")
        outs = (*self._paths(table, "outs"), *metrics, *self._paths(table, "plots"))
        return DvcStage(
            name=self._name,
            description=str(table.get("desc", "")),
            commands=tuple(REFERENCE.sub(r"${\1}", each) for each in commands),
            deps=self._paths(table, "deps"),
            outs=tuple(dict.fromkeys(outs)),
            metrics=metrics,
            param_files=self._param_files(table.get("params") or []),
        )

    def _refuse(self, what: str, instead: str) -> NoReturn:
        _refuse(self._path, f"stage '{self._name}': {what}", instead)

    def _paths(self, table: Mapping[str, Any], key: str) -> tuple[str, ...]:
        return tuple(self._path_of(key, each) for each in table.get(key) or ())

    def _path_of(self, key: str, entry: object) -> str:
        if isinstance(entry, dict) and len(entry) == 1:
            ((entry, options),) = entry.items()
            for option in (options or {}).keys() - _WITHOUT_MEANING:
                if key != "plots":  # how they are drawn
                    self._refuse(f"'{option}' of {key} '{entry}' can't be taken over", "remove it")
        if not isinstance(entry, str):
            self._refuse(f"'{key}' has something that is no path", "write paths only")
        path = REFERENCE.sub(self._value, entry)
        if "://" in path or path.startswith(("/", "~")):
            self._refuse(f"{key} '{path}' lies elsewhere", "bring it into the workspace")
        if ".." in PurePosixPath(path).parts:
            self._refuse(f"{key} '{path}' leads out of the folder", "bring it into the folder")
        return str(PurePosixPath(path))

    def _value(self, match: re.Match[str]) -> str:
        value = self._values.get(match[1])
        if not isinstance(value, str | int | float):
            self._refuse(f"'{match[0]}' is no text and no number", "write it out")
        return str(value)

    def _param_files(self, entries: list[object]) -> tuple[str, ...]:
        files = {PARAMS: None} if any(isinstance(each, str) for each in entries) else {}
        for each in entries:
            files |= dict.fromkeys(each) if isinstance(each, dict) else {}
        return tuple(files)
