"""What a recipe's [environment] asks for: packages, a pyproject.toml or a requirements file.

Runs on every build, also when there is nothing to do: `packaging` is imported only for
requirements that are not of the plain form `name[extra]>=1,<2`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, NoReturn

from modelbuild.errors import InvalidInputError
from modelbuild.spec.logins import without_logins
from modelbuild.spec.package_names import normalised_name
from modelbuild.spec.recipe import Recipe

CONSTRAINT = "-c "
"""Begins those of `requirements_of` that only narrow a version, as in pip's requirements files."""

_PLAIN = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"\s*(?:\[\s*(?P<extras>[a-z0-9-]+(?:\s*,\s*[a-z0-9-]+)*)\s*\])?"
    r"\s*(?P<versions>(?:==|>=|<=|!=|<|>)\s*\d+(?:\.\d+)*"
    r"(?:\s*,\s*(?:==|>=|<=|!=|<|>)\s*\d+(?:\.\d+)*)*)?"
)
_INDEX_OPTIONS = (
    "-i",
    "-f",
    "--index-url",
    "--extra-index-url",
    "--find-links",
    "--no-index",
    "--trusted-host",
)
_LOCATION = re.compile(r"\s*(?:-e\b|--editable\b|[./~]|[A-Za-z][A-Za-z0-9+.-]*:)")


def requirements_of(recipe: Recipe, workspace: Path) -> tuple[str, ...]:
    """Sorted and normalised: two spellings of one requirement are the same string.

    Raises InvalidInputError, with file and line.
    """
    environment = recipe.environment
    if environment.project is not None:
        found = _of_project(recipe, workspace)
    elif environment.requirements is not None:
        found = _of_requirements_file(recipe, workspace)
    else:
        where = recipe.where("environment.packages")
        found = (normalised(text, where) for text in environment.packages or ())
    return tuple(sorted(set(found)))


def normalised(text: str, where: str) -> str:
    """One requirement in the one way we write it, `name[extras]versions; marker`."""
    plain = _PLAIN.fullmatch(text.strip())
    if plain is None:
        return _parsed(text, where)
    extras = sorted(set(re.findall(r"[a-z0-9-]+", plain["extras"] or "")))
    versions = sorted(set(re.sub(r"\s", "", plain["versions"] or "").split(",")))
    between = f"[{','.join(extras)}]" if extras else ""
    return normalised_name(plain["name"]) + between + ",".join(versions)


def _parsed(text: str, where: str) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    if _LOCATION.match(text):
        _refuse_location(text, where)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise InvalidInputError(
            f"{where}: not a requirement",
            facts=[
                ("found", without_logins(text)),
                ("because", without_logins(str(error).splitlines()[0])),
            ],
            hint='A requirement reads "name", "name==1.2" or "name[extra]>=1.2,<2".',
        ) from None
    if requirement.url:
        _refuse_location(text, where)
    requirement.name = normalised_name(requirement.name)
    requirement.extras = {normalised_name(extra) for extra in requirement.extras}
    return str(requirement)


def _refuse_location(text: str, where: str) -> NoReturn:
    raise InvalidInputError(
        f"{where}: a package is named, not located",
        facts=[("wanted", "name and versions"), ("found", without_logins(text))],
        hint="The lock says what a wheel is; where it comes from is pip's or uv's configuration. "
        "A folder of wheels does for find-links; your own modules belong under [code].",
    )


# -- pyproject.toml -------------------------------------------------------------------------------


def _of_project(recipe: Recipe, workspace: Path) -> Iterator[str]:
    import tomllib

    where = recipe.where("environment.project")
    path = _inside(workspace, recipe.folder / str(recipe.environment.project), where)
    shown = str(path.relative_to(workspace))
    try:
        content = tomllib.loads(_text(path, shown, where))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInputError(f"{shown}: not TOML", facts=[("because", str(error))]) from None
    project = _table(content, "project", shown)
    if "dependencies" in project.get("dynamic", ()):
        raise InvalidInputError(
            f"{shown}: [project] dependencies are dynamic, only its build backend knows them",
            hint="Write them into [project], or name a requirements file in [environment].",
        )
    texts = [*_strings(project, "dependencies", shown)]
    for extra in recipe.environment.extras:
        texts += _extra(project, extra, shown, recipe.where("environment.extras"))
    found = [normalised(text, shown) for text in texts]
    _refuse_sources(content, found, shown)
    own = normalised_name(str(project.get("name", "")))
    return (text for text in found if _name(text) != own)


def _extra(
    project: Mapping[str, Any],
    extra: str,
    shown: str,
    where: str,
    seen: frozenset[str] = frozenset(),
) -> Iterator[str]:
    """An extra's requirements, with those of the project's other extras that it names."""
    groups = project.get("optional-dependencies", {})
    extras = {normalised_name(name): _strings(groups, name, shown) for name in groups}
    if normalised_name(extra) not in extras:
        raise InvalidInputError(
            f"{where}: {shown} has no extra '{extra}'",
            facts=[("found", ", ".join(sorted(extras)) or "no extras")],
        )
    own = normalised_name(str(project.get("name", "")))
    for text in extras[normalised_name(extra)]:
        yield text
        requirement = normalised(text, shown)
        if _name(requirement) == own and (named := re.search(r"\[(.*?)\]", requirement)):
            for other in {*named[1].split(",")} - seen - {normalised_name(extra)}:
                yield from _extra(project, other, shown, where, seen | {normalised_name(extra)})


def _refuse_sources(content: Mapping[str, Any], requires: list[str], shown: str) -> None:
    """[tool.uv.sources] may say that a name is not the index's package of that name."""
    sources = content.get("tool", {}).get("uv", {}).get("sources", {})
    names = {_name(text) for text in requires}
    for name, source in sources.items():
        entries = source if isinstance(source, list) else [source]
        if normalised_name(name) in names and any("index" not in entry for entry in entries):
            raise InvalidInputError(
                f"{shown}: [tool.uv.sources] takes '{name}' from elsewhere than an index",
                hint="Build a wheel of it into a folder that find-links names, or put its modules "
                "under [code] and leave it out of the dependencies.",
            )


def _table(content: Mapping[str, Any], key: str, shown: str) -> Mapping[str, Any]:
    table = content.get(key)
    if not isinstance(table, dict):
        raise InvalidInputError(f"{shown}: no [{key}] table, so no dependencies")
    return table


def _strings(table: Mapping[str, Any], key: str, shown: str) -> list[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise InvalidInputError(f"{shown}: [project] {key} is not a list of strings")
    return value


# -- requirements files ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a requirements file and those that it includes, each once."""

    workspace: Path
    seen: set[tuple[Path, bool]] = field(default_factory=set)

    def read(self, relative: PurePath, constraints: bool, where: str) -> Iterator[str]:
        """`relative` to the workspace."""
        path = _inside(self.workspace, relative, where)
        if (path, constraints) in self.seen:
            return
        self.seen.add((path, constraints))
        shown = str(path.relative_to(self.workspace))
        for number, line in _logical_lines(_text(path, shown, where)):
            yield from self._line(line, path, constraints, f"{shown}:{number}")

    def _line(self, line: str, path: Path, constraints: bool, where: str) -> Iterator[str]:
        option = re.match(r"(-[rc]|--requirements?|--constraints?)(?:\s+|=|(?<=-[rc]))(\S.*)", line)
        if option:
            if "://" in option[2]:
                _refuse_download(option[2], where)
            narrows = constraints or option[1] in ("-c", "--constraint", "--constraints")
            folder = path.parent.relative_to(self.workspace)
            yield from self.read(folder / option[2].strip("\"'"), narrows, where)
        elif line.startswith("-") and not re.match(r"-e\b|--editable\b", line):
            _refuse_option(line, where)
        elif "--hash" in line:
            raise InvalidInputError(
                f"{where}: a requirement with hashes",
                hint="modelbuild pins hashes itself: name the file that this one was made from.",
            )
        else:
            yield (CONSTRAINT if constraints else "") + normalised(line, where)


def _of_requirements_file(recipe: Recipe, workspace: Path) -> Iterator[str]:
    path = recipe.folder / str(recipe.environment.requirements)
    return _Reader(workspace).read(path, False, recipe.where("environment.requirements"))


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines by number without comments; a backslash at the end joins the next, as in pip."""
    start, joined = 0, ""
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        start = start or number
        if line.endswith("\\"):
            joined += line[:-1]
            continue
        complete = re.sub(r"(^|\s)#.*", "", joined + line).strip()
        if complete:
            yield start, complete
        start, joined = 0, ""


def _refuse_option(line: str, where: str) -> NoReturn:
    option = re.findall(r"^--[A-Za-z-]*|^-.?", line)[0]  # what follows may be a URL with a login
    if option in _INDEX_OPTIONS:
        hint = (
            "Where packages come from belongs to pip's or uv's configuration (pip config, uv.toml)."
        )
    else:
        hint = "Of the options, -r and -c can stand in a requirements file."
    raise InvalidInputError(f"{where}: option {option} can't stand here", hint=hint)


def _refuse_download(url: str, where: str) -> NoReturn:
    raise InvalidInputError(
        f"{where}: -r and -c take files of the workspace",
        facts=[("found", without_logins(url))],
        hint="Keep a copy of it in the workspace.",
    )


# -- files ----------------------------------------------------------------------------------------


def _inside(workspace: Path, relative: PurePath, where: str) -> Path:
    plain = os.path.normpath(relative)
    if os.path.isabs(plain) or plain.split(os.sep)[0] == os.pardir:
        raise InvalidInputError(f"{where}: the path leaves the workspace", facts=[("found", plain)])
    return workspace / plain


def _text(path: Path, shown: str, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InvalidInputError(f"{where}: no such file", facts=[("wanted", shown)]) from None
    except UnicodeDecodeError:
        raise InvalidInputError(f"{shown}: not UTF-8") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidInputError(f"{shown}: can't be read", facts=[("because", reason)]) from None


def _name(requirement: str) -> str:
    match = re.match(r"[a-z0-9-]+", requirement)
    return match[0] if match else ""
