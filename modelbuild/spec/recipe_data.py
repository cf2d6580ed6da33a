"""The `[data.NAME]` tables of a recipe."""

from __future__ import annotations

import re
from collections.abc import Callable

from modelbuild.spec.package_names import normalised_name
from modelbuild.spec.recipe import (
    Data,
    LocationData,
    PackageData,
    PathData,
    RecipeData,
    UrlData,
)
from modelbuild.spec.recipe_fields import Table, describe, listing, printable
from modelbuild.spec.recipe_paths import ELSEWHERE, inner_path, workspace_path

_FIELDS: dict[str, tuple[str, ...]] = {
    "path": (),
    "location": ("file", "folder"),
    "url": ("sha256", "unpack"),
    "package": ("file", "folder"),
    "recipe": ("stage",),
}
"""What each kind of data takes besides its own key."""
_PLANNED = ("git", "object", "huggingface")
_KNOWN = tuple(dict.fromkeys((*_FIELDS, *(key for keys in _FIELDS.values() for key in keys))))
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_URL = r"(?i:https?)://[^/?#\s@]+(?:[/?][^#\s]*)?"
_SHA256 = r"[0-9A-Fa-f]{64}"


def read_data(tables: Table, recipe: str) -> dict[str, Data]:
    """`recipe` is the name of the recipe that is read."""
    found: dict[str, Data] = {}
    for name, table in tables.tables('Data is a table: [data.NAME], then path = "..."'):
        tables.check_name(name, name, "data")
        data = found[name] = _READERS[_kind(table)](table)
        if isinstance(data, RecipeData) and data.recipe == recipe:
            table.fail(
                "recipe",
                f"data '{name}' is of the recipe itself",
                wanted="another recipe of the workspace",
                found=recipe,
                hint="A stage reads another stage of its own recipe with {stages.NAME}.",
            )
    return found


def package_name(table: Table, key: str, name: str) -> str:
    """The normalised name of a Python package."""
    if not _PACKAGE.fullmatch(name):
        table.fail(
            key,
            f"{table.named(key)} is not the name of a package",
            wanted="a name as in 'scikit-learn'",
            found=printable(name) or "an empty string",
        )
    return normalised_name(name)


def _kind(table: Table) -> str:
    for planned in _PLANNED:
        if planned in table.values:
            table.fail(
                planned,
                f"data of kind '{planned}' is not supported",
                wanted=f"one of {listing(_FIELDS)}",
                found=planned,
            )
    table.only(_KNOWN)
    kinds = [kind for kind in _FIELDS if kind in table.values]
    if len(kinds) != 1:
        several = f"{len(kinds)} kinds of data" if kinds else "no kind of data"
        table.fail(
            kinds[1] if kinds else "",
            f"[{printable(table.key)}] has {several}",
            wanted=f"exactly one of {listing(_FIELDS)}",
            found=listing(kinds or table.values),
        )
    allowed = (kinds[0], *_FIELDS[kinds[0]])
    for key in table.values:
        if key not in allowed:
            table.fail(
                key,
                f"{table.named(key)} does not go with '{kinds[0]}'",
                wanted=listing(allowed),
                found=listing(table.values),
            )
    return kinds[0]


def _read_path(table: Table) -> Data:
    path = table.text("path", "")
    return PathData(path=workspace_path(table, "path", path, ELSEWHERE))


def _read_location(table: Table) -> Data:
    name = table.check_name("location", table.text("location", ""), "a location")
    key = _file_or_folder(table)
    if key is None:
        return LocationData(location=name)
    path = inner_path(table, key, table.text(key, ""), "the location")
    return LocationData(location=name, path=path, folder=key == "folder")


def _read_url(table: Table) -> Data:
    url = table.text("url", "")
    if not re.fullmatch(_URL, url):
        table.fail(
            "url",
            f"{table.named('url')} can't be fetched",
            wanted="an http or https URL without user name, password, fragment or spaces",
            found=describe(re.sub("//[^/]*@", "//...@", url)),
        )
    sha256 = table.text("sha256", None)
    if sha256 is not None and not re.fullmatch(_SHA256, sha256):
        table.fail(
            "sha256",
            f"{table.named('sha256')} is not a SHA-256",
            wanted="64 hexadecimal digits",
            found=describe(sha256),
        )
    return UrlData(
        url=url,
        sha256=sha256.lower() if sha256 else None,
        unpack=table.boolean("unpack", None),
    )


def _read_package(table: Table) -> Data:
    name = package_name(table, "package", table.text("package", ""))
    key = _file_or_folder(table)
    if key is None:
        table.fail(
            "package",
            f"[{printable(table.key)}] does not say what to take from the package",
            wanted="'file' or 'folder', a path in the wheel",
            found=listing(table.values),
        )
    path = inner_path(table, key, table.text(key, ""), "the package")
    return PackageData(package=name, path=path, folder=key == "folder")


def _read_recipe(table: Table) -> Data:
    recipe = table.check_name("recipe", table.text("recipe", ""), "a recipe")
    stage = table.text("stage", None)
    if stage is not None:
        table.check_name("stage", stage, "a stage")
    return RecipeData(recipe=recipe, stage=stage)


def _file_or_folder(table: Table) -> str | None:
    keys = [key for key in ("file", "folder") if key in table.values]
    if len(keys) == 2:
        table.fail(
            "folder",
            f"[{printable(table.key)}] has both 'file' and 'folder'",
            wanted="one of file, folder",
            found=listing(table.values),
        )
    return keys[0] if keys else None


_READERS: dict[str, Callable[[Table], Data]] = {
    "path": _read_path,
    "location": _read_location,
    "url": _read_url,
    "package": _read_package,
    "recipe": _read_recipe,
}
