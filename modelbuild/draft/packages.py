"""The `[environment]` of a drafted recipe: which Python, and which packages."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from modelbuild.draft.drafted import Draft
from modelbuild.draft.module_names import Installed, packages_for, requirement
from modelbuild.draft.observe import Observation
from modelbuild.draft.own_modules import own_modules
from modelbuild.spec.package_names import normalised_name

_TOOLS = frozenset({"coverage", "debugpy", "modelbuild", "pip", "setuptools", "wheel"})
"""Loaded by what starts a program, not by what it computes with."""
_LISTS = ("requirements.in", "requirements.txt")


@dataclass(frozen=True, kw_only=True, slots=True)
class Packages:
    python: str
    key: str
    """`packages`, `project` or `requirements`."""
    values: tuple[str, ...]
    """Requirements; or the one path of the file that has them."""
    comment: str


def imported_packages(draft: Draft, folder: Path, installed: Installed, python: str) -> Packages:
    """Those that bring what the program imports. `python` is the version of where it runs."""
    modules, own = draft.script.modules, own_modules(draft)
    names = packages_for(modules, own, installed)
    if not installed.versions.keys() >= set(names):  # not where it runs
        installed = Installed()
        names = packages_for(modules, own, installed)
    values = tuple(requirement(name, installed) for name in names)
    comment = f"What {draft.script.path} imports"
    comment += ", as it is installed here. " if installed.versions and names else ". "
    comment += "model.lock pins the versions, and all that these need."
    return Packages(
        python=_python_version(folder, python), key="packages", values=values, comment=comment
    )


def observed_packages(
    draft: Draft, folder: Path, seen: Observation, installed: Installed
) -> Packages:
    """Those that a run loaded: what the program imports itself, and what others brought in.

    What those require is left to the lock.
    """
    loaded = {name.partition(".")[0] for name in seen.modules}
    imported = [each for each in draft.script.modules if each.name.partition(".")[0] in loaded]
    names = set(packages_for(imported, own_modules(draft), installed))
    brings = (installed.modules.get(top, frozenset()) for top in loaded - own_modules(draft))
    others = {min(packages) for packages in brings if len(packages) == 1}
    extra = others - installed.with_all_required(names) - _TOOLS
    extra -= {other for each in extra for other in installed.with_all_required([each]) - {each}}
    comment = f"What {draft.script.path} imported, in the versions that it ran with. "
    if extra:
        comment += f"Others loaded {', '.join(sorted(extra))}, which they can do without. "
    return Packages(
        python=seen.python or _python_version(folder, "3.11"),
        key="packages",
        values=tuple(requirement(name, installed) for name in sorted(names | extra)),
        comment=f"{comment}model.lock pins all that these need.",
    )


def listed_packages(folder: Path, imported: Packages, named: Path | None = None) -> Packages | None:
    """The list of packages that is named, else the folder's own, where it has one."""
    key, path = ("requirements", os.path.relpath(named, folder)) if named else _list_of(folder)
    if not path:
        return None
    comment = f"model.lock pins the versions that {path} leaves open, and all that these need."
    text = normalised_name(folder.joinpath(path).read_text(encoding="utf-8", errors="replace"))
    names = [re.split("=", value)[0] for value in imported.values]
    unnamed = [name for name in names if name not in text]
    if unnamed:
        comment += (
            f" It does not name what is imported, unless others bring it: {', '.join(unnamed)}."
        )
    return replace(imported, key=key, values=(path,), comment=comment)


def _list_of(folder: Path) -> tuple[str, str]:
    if "dependencies" in _project(folder):
        return "project", "pyproject.toml"
    found = [name for name in _LISTS if (folder / name).is_file()]
    return ("requirements", found[0]) if found else ("", "")


def _project(folder: Path) -> Mapping[str, object]:
    """`[project]` of pyproject.toml, empty where there is none that can be read."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    except (OSError, ValueError, KeyError):
        return {}
    return project if isinstance(project, dict) else {}


def _python_version(folder: Path, python: str) -> str:
    """What .python-version says; else `python`, moved up to what the project requires."""
    try:
        text = (folder / ".python-version").read_text(encoding="utf-8")
    except (OSError, ValueError):
        text = ""
    chosen = re.match(r"\s*(?:cpython-?)?(3\.\d+)", text)
    if chosen:
        return chosen[1]
    least = re.search(r">=\s*3\.(\d+)", str(_project(folder).get("requires-python", "")))
    minor = int(python.partition(".")[2])
    return f"3.{max(minor, int(least[1]))}" if least else python
