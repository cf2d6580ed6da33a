"""Paths and globs in a recipe: relative, and staying where they belong."""

from __future__ import annotations

from modelbuild.spec.globs import has_wildcard
from modelbuild.spec.recipe_fields import Table, printable

_ABSOLUTE = "is absolute"
ELSEWHERE = 'Data that lives elsewhere is named, and each user maps the name: location = "NAME"'


def workspace_path(table: Table, key: str, path: str, hint: str | None = None) -> str:
    """A path or glob, relative to the recipe, that stays in the workspace.

    `hint` says where to turn with a path that is outside.
    """
    above = len(table.source.path.parent.parts)
    return _checked(table, key, path, above, "the workspace", hint)


def code_glob(table: Table, key: str, glob: str) -> str:
    """A path or glob of code: at or below the recipe's folder."""
    problem = path_problem(glob, 0, "the recipe's folder")
    if problem is None and ".." in glob.split("/"):
        problem = "goes up"
    if problem:
        table.fail(
            key,
            f"{table.named(key)} {problem}",
            wanted="paths and globs at or below the recipe's folder, without '..'",
            found=printable(glob) or "an empty string",
            hint="A link in the recipe's folder to a file of the workspace is code too."
            if problem.startswith((_ABSOLUTE, "leaves"))
            else None,
        )
    return glob


def inner_path(table: Table, key: str, path: str, inside: str) -> str:
    """A path of something below the root that `inside` names."""
    checked = _checked(table, key, path, 0, inside, None)
    if all(part in ("", ".", "..") for part in checked.split("/")):
        _refuse(table, key, path, "names no file", inside, None)
    return checked


def _checked(table: Table, key: str, path: str, above: int, inside: str, hint: str | None) -> str:
    problem = path_problem(path, above, inside)
    if problem:
        elsewhere = problem in (_ABSOLUTE, f"leaves {inside}")
        _refuse(table, key, path, problem, inside, hint if elsewhere else None)
    return path


def _refuse(table: Table, key: str, path: str, problem: str, inside: str, hint: str | None) -> None:
    start = "the recipe's folder" if inside == "the workspace" else inside
    table.fail(
        key,
        f"{table.named(key)} {problem}",
        wanted=f"a path relative to {start} that stays in {inside}",
        found=printable(path) or "an empty string",
        hint=hint,
    )


def path_problem(path: str, above: int, inside: str) -> str | None:
    """What is wrong with a path that may go up `above` folders. Links are not looked at."""
    if not path:
        return "is empty"
    if "\\" in path:
        return "contains a backslash"
    if path.startswith(("/", "~/")):
        return _ABSOLUTE
    depth, after_wildcard = above, False
    for part in path.split("/"):
        if part == "..":
            depth -= 1
            if after_wildcard:  # `**` may match no folder at all
                return "goes up after a wildcard"
            if depth < 0:
                return f"leaves {inside}"
        elif part not in ("", "."):
            depth += 1
            after_wildcard |= has_wildcard(part)
    return None
