"""Modules of the user's own, wherever they lie: none of them is asked for as a package.

An index may have a stranger's package of the same name.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from modelbuild.draft.drafted import Draft, Surroundings
from modelbuild.draft.module_names import module_parts, name_start, package_of
from modelbuild.draft.observe import Observation
from modelbuild.draft.script import Script
from modelbuild.errors import ModelbuildError

_OF_SOURCES = ("", "src", "lib", "python")
"""Folders of a repository from which its packages are imported."""
_INSTALLED = re.compile(r".*/(dist-packages|site-packages|lib(64)?/python3[^/]*)/.*")


def own_modules(draft: Draft) -> set[str]:
    """The top-level names that the recipe's code itself provides, or that lie above it."""
    return {*provided(draft.script.path, draft.reached, draft.stage.search), *draft.elsewhere}


def provided(script: str, paths: Iterable[str], search: Iterable[str] = ()) -> set[str]:
    """The top-level names that these files have for a script in the recipe's folder."""
    beside = PurePosixPath(script).parent
    roots = (PurePosixPath(), beside, *map(PurePosixPath, search))
    found = set()
    for path in map(PurePosixPath, paths):
        for root in roots:
            if path.is_relative_to(root):
                found.add(path.relative_to(root).parts[0].removesuffix(".py"))
    return found


# -- told from the text ---------------------------------------------------------------------------


def folders_below(script: Script, own: Collection[str], around: Surroundings) -> list[str]:
    """The recipe's folders, called as those of sources are or named in the script, in which
    modules lie that it imports, and that nothing installed brings."""
    named = {os.path.normpath(each.text) for each in script.literals if each.text}
    found = set()
    for name in _imported(script, own) - around.installed.modules.keys():
        for path in sorted(around.files):
            root = _root(path, name)
            if root and (os.path.basename(root) in _OF_SOURCES or root in named):
                found.add(root)
                break
    return sorted(found)


def _root(path: str, name: str) -> str:
    """`src` of `src/NAME.py` and `src/NAME/a.py`; empty where the file is of no such module."""
    *folders, file = PurePosixPath(path).parts
    if file != f"{name}.py" and folders[-1:] == [name]:
        folders.pop()
    elif file != f"{name}.py":
        return ""
    return "/".join(folders)


def _imported(script: Script, own: Collection[str]) -> set[str]:
    tops = {each.name.partition(".")[0] for each in script.modules}
    return tops - {*own} - sys.stdlib_module_names


def found_above(script: Script, own: Collection[str], around: Surroundings) -> dict[str, Path]:
    """The imported modules that lie above the recipe's folder in the workspace, and where."""
    found = {}
    for name in sorted(_imported(script, own)):
        for place in _folders_above(around):
            if _holds(place, name, around):
                found[name] = place
                break
    return found


def _folders_above(around: Surroundings) -> Iterator[Path]:
    for folder in around.folder.parents:
        if not folder.is_relative_to(around.workspace):
            return
        yield from (folder / name for name in _OF_SOURCES)


def _holds(place: Path, name: str, around: Surroundings) -> bool:
    """Python prefers what is installed to a folder without `__init__.py`."""
    folder = place / name
    if (place / f"{name}.py").is_file() or (folder / "__init__.py").is_file():
        return True
    if around.folder.is_relative_to(folder) or name in around.installed.modules:
        return False
    return folder.is_dir() and any(folder.glob("*.py"))


def note_on_above(script: str, found: Mapping[str, Path], around: Surroundings) -> str:
    """What to do, as seen from the recipe's folder."""
    top = _above_all(around.folder, found.values())
    moved = os.path.relpath(around.folder / script, top)
    upwards = os.path.relpath(top, around.folder)
    return (
        f"{script} imports {_shown(found, around.folder)}: a recipe's code lies at or below its "
        f"folder. Remove this recipe, and write it there: cd {shlex.quote(upwards)} && modelbuild "
        f"init --script {shlex.quote(moved)}"
    )


# -- seen in a run --------------------------------------------------------------------------------


def imported_from_elsewhere(seen: Observation, around: Surroundings) -> dict[str, Path]:
    """The modules that were imported from outside of the recipe's folder, and from where."""
    found: dict[str, Path] = {}
    for path in sorted(seen.read):
        if path.suffix != ".py" or path.is_relative_to(around.folder):
            continue
        if _INSTALLED.fullmatch(str(path)):
            continue
        start = name_start(module_parts(path), seen.modules)
        name = path.parts[start].removesuffix(".py") if start else ""
        if name and name not in sys.stdlib_module_names:
            found.setdefault(name, Path(*path.parts[:start]))
    return found


def not_to_be_had(
    command: Sequence[str], script: Script, found: Mapping[str, Path], around: Surroundings
) -> dict[str, Path]:
    """Modules from outside of the workspace that the script imports and no package brings.

    Raises ModelbuildError where there are such in the workspace, outside of the recipe's folder.
    """
    above = {n: place for n, place in found.items() if place.is_relative_to(around.workspace)}
    if above:
        raise _lies_above(command, script.path, above, around)
    named = {each.name.partition(".")[0] for each in script.modules}
    versions = around.installed.versions
    return {
        name: place
        for name, place in found.items()
        if name in named and package_of(name, around.installed) not in versions
    }


def note_on_elsewhere(script: str, found: Mapping[str, Path]) -> str:
    return (
        f"{script} imports {', '.join(found)} from outside of the workspace: a recipe's code lies "
        "at or below its folder. Copy it there, or name in `packages` what brings it."
    )


def _lies_above(
    command: Sequence[str], script: str, above: Mapping[str, Path], around: Surroundings
) -> ModelbuildError:
    top = _above_all(around.folder, above.values())
    search = ":".join(dict.fromkeys(os.path.relpath(place, top) for place in above.values()))
    words = list(_seen_from(top, command, script, around.folder))
    return ModelbuildError(
        f"{script} imports {_shown(above, around.folder)}: outside of the recipe's folder, "
        f"{around.folder}",
        hint="A recipe's code lies at or below its folder. No recipe was written; run it from "
        "above, where paths\nthat the script itself has are seen from there:\n"
        f"  cd {shlex.quote(str(top))}\n"
        f"  PYTHONPATH={shlex.quote(search)} modelbuild init -- {shlex.join(words)}",
    )


def _seen_from(top: Path, command: Sequence[str], script: str, folder: Path) -> Iterator[str]:
    """The words of a command that ran in a folder, for another one above that."""
    for before, word in zip(["", *command], command, strict=False):
        option, equals, value = word.partition("=")
        if before == "-m" and script in (f"{_slashed(word)}.py", f"{_slashed(word)}/__main__.py"):
            yield f"{os.path.relpath(folder, top)}/{_slashed(word)}".replace("/", ".")
        elif os.path.lexists(folder / word) and not os.path.isabs(word):
            yield os.path.relpath(folder / word, top)
        elif value and os.path.lexists(folder / value) and not os.path.isabs(value):
            yield f"{option}{equals}{os.path.relpath(folder / value, top)}"
        else:
            yield word


def _slashed(module: str) -> str:
    return module.replace(".", "/")


def _above_all(folder: Path, places: Iterable[Path]) -> Path:
    return Path(os.path.commonpath([folder, *places]))


def _shown(found: Mapping[str, Path], folder: Path) -> str:
    return ", ".join(
        f"{name} ({os.path.relpath(place / name, folder)})" for name, place in found.items()
    )
