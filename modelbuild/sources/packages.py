"""Data that a wheel of the environment ships."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from modelbuild.errors import InvalidInputError
from modelbuild.sources.source import Found, SourceContext, nearest, publish
from modelbuild.spec.digest import Digest
from modelbuild.spec.recipe import PackageData
from modelbuild.store.copies import copy_file, copy_tree


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file or a folder inside a package's locked wheel, as a fixed output."""

    name: str
    data: PackageData
    context: SourceContext
    fixed: ClassVar[bool] = True

    def find(self, expected: Digest | None) -> Found:
        wheel = self.context.unpacked_wheel(self.data.package)
        path = wheel / self.data.path
        self._check(wheel, path)
        file = None if self.data.folder else path.name
        with self.context.store.temporary("package") as work:
            content = work / "content"
            if file is None:
                copy_tree(path, content)
            else:
                content.mkdir()
                copy_file(os.fsencode(path), os.fsencode(content / file))
            origin = self._origin(wheel)
            return publish(content, self.name, self.context, file=file, resolved=origin)

    def _check(self, wheel: Path, path: Path) -> None:
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(wheel))
        if inside and (path.is_dir() if self.data.folder else path.is_file()):
            return
        kind = "folder" if self.data.folder else "file"
        other = "file" if self.data.folder else "folder"
        facts = [("wanted", f"the {kind} {self.data.path}")]
        if inside and path.exists():
            facts.append(("found", f"a {other}; it is named with the key '{other}'"))
        else:
            facts += nearest(self.data.path, sorted(_names(wheel, folders=self.data.folder)))
        raise InvalidInputError(
            f"{self.context.recipe.where(f'data.{self.name}')}: data '{self.name}' is not in the "
            f"wheel of {self.data.package}",
            facts=facts,
        )

    def _origin(self, wheel: Path) -> str:
        version = next(iter(sorted(wheel.glob("*.dist-info"))), None)
        number = f" {version.stem.partition('-')[2]}" if version else ""
        return f"{self.data.package}{number}: {self.data.path}"


def _names(wheel: Path, *, folders: bool) -> Iterator[str]:
    for parent, inner, files in os.walk(wheel):
        for name in inner if folders else files:
            yield (Path(parent) / name).relative_to(wheel).as_posix()
