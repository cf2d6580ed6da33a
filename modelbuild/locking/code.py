"""The code of a recipe, and the part of it that each stage sees."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

from modelbuild.errors import InvalidInputError, ModelbuildError
from modelbuild.sources.workspace import LOCK_NAME
from modelbuild.spec.digest import Digest
from modelbuild.spec.globs import glob_parts, has_wildcard, plain_parts
from modelbuild.spec.lock import LockedFile
from modelbuild.spec.recipe import Recipe, Stage

_NOT_CODE = frozenset({"__pycache__", "node_modules"})
_COMPARED = 2000
"""Names in which the nearest is looked for: comparing more takes seconds."""

_Parts = tuple[str, ...]
"""A glob by its folders, `.` and empty parts left out."""


def recipe_code(recipe: Recipe, folder: Path) -> dict[str, LockedFile]:
    """The files that `[code] include` names, by their paths in the recipe's `folder`.

    A glob knows `*`, `?`, `[...]` within a name and `**` for folders; a folder that is named
    plainly stands for all below it. Neither follows links to folders, nor takes what is hidden,
    `__pycache__`, `node_modules`, virtual environments, `result-*` links, the recipe and the
    lock. A link to a file of the workspace is code with that file's content.
    """
    workspace = folder.resolve()
    for _ in recipe.folder.parts:
        workspace = workspace.parent
    found: dict[str, LockedFile] = {}
    for pattern in recipe.code:
        paths = set(_files(str(folder), _parts(recipe, pattern)))
        if glob_parts(pattern) != (recipe.path.name,):
            paths.discard(recipe.path.name)
        if not paths:
            raise _matches_nothing(recipe, folder, pattern)
        for path in paths - found.keys():
            found[path] = _locked_file(recipe, folder, path, workspace)
    return dict(sorted(found.items()))


def code_folders(folder: Path, pattern: str) -> Iterator[str]:
    """The folders that decide what a pattern takes in: a new file in one of them may be code."""
    parts = glob_parts(pattern)
    top = os.path.join(folder, *parts[: plain_parts(parts)])
    if not os.path.isdir(top):
        return
    for place, folders, _ in os.walk(top):
        yield place
        folders[:] = [name for name in folders if _visible(name) and name not in _NOT_CODE]


def _parts(recipe: Recipe, pattern: str) -> _Parts:
    parts = glob_parts(pattern)
    if parts[-1:] == (LOCK_NAME,):
        raise InvalidInputError(
            f"{recipe.where('code.include')}: the lock can't be code",
            facts=[("found", pattern)],
            hint="The lock holds the digests of the code.",
        )
    return parts


def glob_matches(path: _Parts, glob: _Parts) -> bool:
    """Whether a glob, or a folder named plainly, takes in the path. Wildcards skip hidden names."""
    if not any(map(has_wildcard, glob)):
        return path[: len(glob)] == glob and all(map(_visible, path[len(glob) :]))
    if not path:
        return False
    if glob[0] == "**":
        inside = _visible(path[0]) and len(path) > 1 and glob_matches(path[1:], glob)
        return inside or glob_matches(path, glob[1:])
    if not fnmatchcase(path[0], glob[0]) or not (_visible(path[0]) or glob[0].startswith(".")):
        return False
    return len(path) == 1 if len(glob) == 1 else glob_matches(path[1:], glob[1:])


def _visible(name: str) -> bool:
    return not name.startswith(".")


def _files(root: str, glob: _Parts) -> Iterator[str]:
    """The files below `root` that the glob takes in, and links that may be to files."""
    plain = plain_parts(glob)
    for end in range(1, plain):
        if os.path.islink(os.path.join(root, *glob[:end])):
            return
    start = "/".join(glob[:plain])
    place = os.path.join(root, start)
    if start and (os.path.islink(place) or not os.path.isdir(place)):
        if plain == len(glob) and os.path.lexists(place) and not os.path.isdir(place):
            yield start
        return
    endless = plain == len(glob) or "**" in glob
    for path in _walk(root, f"{start}/" if start else "", None if endless else len(glob) - plain):
        if glob_matches(tuple(path.split("/")), glob):
            yield path


def _walk(root: str, folder: str, depth: int | None) -> Iterator[str]:
    try:
        with os.scandir(os.path.join(root, folder)) as found:
            items = list(found)
    except OSError as error:
        raise _unreadable(folder, error) from error
    for item in items:
        path = folder + item.name
        if item.is_dir(follow_symlinks=False):
            if depth != 1 and _holds_code(item):
                yield from _walk(root, f"{path}/", depth and depth - 1)
        elif item.name != LOCK_NAME and _may_be_code(item):
            yield path


def _holds_code(folder: os.DirEntry[str]) -> bool:
    return (
        _visible(folder.name)
        and folder.name not in _NOT_CODE
        and not os.path.exists(os.path.join(folder.path, "pyvenv.cfg"))
    )


def _may_be_code(item: os.DirEntry[str]) -> bool:
    if item.is_symlink():
        return not item.name.startswith("result-") and not os.path.isdir(item.path)
    return item.is_file()


def _locked_file(recipe: Recipe, folder: Path, path: str, workspace: Path) -> LockedFile:
    place = folder / path
    if place.is_symlink() and not Path(os.path.realpath(place)).is_relative_to(workspace):
        raise InvalidInputError(
            f"{recipe.where('code.include')}: a link leads out of the workspace",
            facts=[("link", path), ("leads to", os.readlink(place))],
            hint="Copy the file into the workspace.",
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise InvalidInputError(
            f"{recipe.where('code.include')}: the name of a file of code is not UTF-8",
            facts=[("file", shown)],
        ) from None
    try:
        content = place.read_bytes()
        executable = bool(place.stat().st_mode & stat.S_IXUSR)
    except OSError as error:
        raise _unreadable(path, error) from error
    return LockedFile(digest=Digest.of(content), lines=_count_lines(content), executable=executable)


def _count_lines(content: bytes) -> int:
    return content.count(b"\n") + (not content.endswith(b"\n") and content != b"")


def _unreadable(path: str, error: OSError) -> ModelbuildError:
    return ModelbuildError(
        f"can't read {path.rstrip('/') or 'the folder of the recipe'}, which is code",
        facts=[("found", error.strerror or str(error))],
    )


def _matches_nothing(recipe: Recipe, folder: Path, pattern: str) -> InvalidInputError:
    where = recipe.where("code.include")
    facts = [("wanted", pattern)]
    link = _link_to_folder(folder, glob_parts(pattern))
    if link:
        facts.append(("found", f"{link}, a link to a folder; such links are not followed"))
    elif nearest := _nearest(pattern, _walk(str(folder), "", None)):
        facts.append(("nearest", nearest))
    problem = "matches no file" if has_wildcard(pattern) else "does not exist"
    return InvalidInputError(f"{where}: code '{pattern}' {problem}", facts=facts)


def _link_to_folder(folder: Path, parts: _Parts) -> str | None:
    for end in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:end])
        if place.is_symlink() and place.is_dir():
            return "/".join(parts[:end])
    return None


def _nearest(pattern: str, paths: Iterable[str]) -> str | None:
    from difflib import get_close_matches

    some = sorted(islice(paths, _COMPARED))
    return next(iter(get_close_matches(pattern, some, n=1)), None)


def stage_code(
    stage: Stage, files: Mapping[str, bytes], where: str | None = None
) -> tuple[str, ...] | None:
    """The paths of the recipe's code that the stage sees, sorted; None: all.

    `stage.code` decides where it is given. Else the stage sees all that is not Python, and of
    Python what its command's script reaches by imports, all where that can't be told.
    `where` is the place of `stage.code`, for messages.
    """
    if stage.code is None:
        from modelbuild.locking.imports import reached_files

        seen = reached_files(stage, files)
    else:
        seen = set().union(*(_named(stage, glob, files, where) for glob in stage.code))
    return None if seen is None or seen == files.keys() else tuple(sorted(seen))


def _named(stage: Stage, pattern: str, files: Mapping[str, bytes], where: str | None) -> set[str]:
    glob = glob_parts(pattern)
    found = {path for path in files if glob_matches(tuple(path.split("/")), glob)}
    if not found:
        facts = [("wanted", "part of what [code] include takes in"), ("found", pattern)]
        if nearest := _nearest(pattern, files):
            facts.append(("nearest", nearest))
        prefix = f"{where}: " if where else ""
        raise InvalidInputError(
            f"{prefix}stage '{stage.name}': code '{pattern}' matches none of the recipe's code",
            facts=facts,
        )
    return found
