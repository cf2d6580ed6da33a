"""Data that lives elsewhere: names that each user maps to folders."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelbuild.errors import InvalidInputError, ModelbuildError
from modelbuild.sources.source import (
    Found,
    SourceAbsentError,
    SourceContext,
    exists,
    nearest,
    use_in_place,
)
from modelbuild.spec.digest import Digest
from modelbuild.spec.recipe import LocationData

_PREFIX = "MODELBUILD_LOCATION_"
_HOW_TO_MAP = """\
To map it, write these lines into modelbuild/config.toml in $XDG_CONFIG_HOME or ~/.config:
  [locations]
  {location} = "/path/to/{location}"
or set {variable}=/path/to/{location}"""


def read_locations(environ: Mapping[str, str]) -> dict[str, Path]:
    """`[locations]` of the user's configuration, and the variables that override it.

    The latter under their own names, since MODELBUILD_LOCATION_IMAGE_NET may mean `image-net`
    and `image_net`. Raises ModelbuildError for a configuration that can't be read.
    """
    configuration = configuration_file(environ)
    found = {name: _folder(name, value, configuration) for name, value in _table(configuration)}
    for name, value in environ.items():
        if name.startswith(_PREFIX):
            found[name] = _folder(name, value, None)
    return found


def configuration_file(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME")
    folder = Path(home) if home else Path(environ.get("HOME") or Path.home()) / ".config"
    return folder / "modelbuild" / "config.toml"


def _table(configuration: Path) -> list[tuple[str, object]]:
    try:
        data = configuration.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelbuildError(f"cannot read {configuration}: {error.strerror}") from error
    import tomllib

    try:
        table = tomllib.loads(data.decode()).get("locations", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ModelbuildError(
            f"{configuration} is not TOML", facts=[("found", str(error))]
        ) from error
    if not isinstance(table, dict):
        raise ModelbuildError(
            f"{configuration}: 'locations' is not a table",
            facts=[("wanted", '[locations], then lines such as imagenet = "/data/imagenet"')],
        )
    return list(table.items())


def _folder(name: str, value: object, configuration: Path | None) -> Path:
    if isinstance(value, str) and Path(value).expanduser().is_absolute():
        return Path(value).expanduser()
    place = f"{configuration}: location '{name}'" if configuration else name
    raise ModelbuildError(
        f"{place} is not an absolute path",
        facts=[("wanted", "a path that begins with / or ~"), ("found", repr(value))],
    )


def _variable(location: str) -> str:
    return _PREFIX + re.sub(r"[^A-Z0-9]", "_", location.upper())


@dataclass(frozen=True, slots=True)
class LocationSource:
    """A folder that the user mapped, or something below it, in place."""

    name: str
    data: LocationData
    context: SourceContext
    fixed: ClassVar[bool] = False

    def find(self, expected: Digest | None) -> Found:
        folder = self._mapped()
        if not exists(folder):
            raise SourceAbsentError(
                f"{self._title()} is not on this machine",
                facts=[("location", self.data.location), ("mapped to", str(folder))],
                hint="There is nothing at that path. Is it mounted?",
            )
        path = folder if self.data.path is None else folder / self.data.path
        if ".." in path.relative_to(folder).parts:
            raise InvalidInputError(
                f"{self._title()} leaves its location", facts=[("found", str(self.data.path))]
            )
        if not exists(path):
            names = os.listdir(path.parent) if path.parent.is_dir() else []
            error = InvalidInputError if expected is None else SourceAbsentError
            raise error(
                f"{self._title()} is not in its location",
                facts=[("wanted", str(path)), *nearest(path.name, names)],
            )
        if self.data.path is not None:
            self._check_kind(path)
        return use_in_place(path, expected, self.context)

    def _check_kind(self, path: Path) -> None:
        if path.is_dir() != self.data.folder:
            kind, other = ("folder", "file") if self.data.folder else ("file", "folder")
            raise InvalidInputError(
                f"{self._title()} is not a {kind}",
                facts=[
                    ("wanted", f"the {kind} {path}"),
                    ("found", f"a {other}; it is named with the key '{other}'"),
                ],
            )

    def _title(self) -> str:
        where = self.context.recipe.where(f"data.{self.name}")
        return f"{where}: data '{self.name}'"

    def _mapped(self) -> Path:
        location, locations = self.data.location, self.context.locations
        found = locations.get(_variable(location)) or locations.get(location)
        if found is None:
            known = [name for name in locations if not name.startswith(_PREFIX)]
            raise SourceAbsentError(
                f"{self._title()} is at a location that is not mapped on this machine",
                facts=[("location", location), *nearest(location, known)],
                hint=_HOW_TO_MAP.format(location=location, variable=_variable(location)),
            )
        return found
