"""The files around a training script: which of them are data, which configuration."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_CONFIGURATION = frozenset({".cfg", ".gin", ".ini", ".json", ".toml", ".yaml", ".yml"})
_LARGEST_CONFIGURATION = 256 * 1024
_DATA_SUFFIXES = frozenset(
    {
        *(".arrow", ".csv", ".feather", ".gz", ".h5", ".hdf5", ".jsonl", ".npy", ".npz"),
        *(".parquet", ".pkl", ".tsv", ".txt", ".xlsx", ".zip"),
    }
)
_NOT_DATA = frozenset({".py", ".md", ".lock"})
_OF_TOOLS = frozenset(
    {
        *("pyproject.toml", "setup.cfg", "tox.ini", "mypy.ini", "pytest.ini", "ruff.toml"),
        *("recipe.toml", "uv.toml", "environment.yml", "environment.yaml", "dvc.yaml"),
        *("mkdocs.yml", "docker-compose.yml", "docker-compose.yaml", "compose.yaml"),
        *("conda.yml", "conda.yaml", "codecov.yml", "poetry.toml", "hatch.toml"),
    }
)
"""Configuration of tools that a training does not read."""


@dataclass(frozen=True, slots=True)
class Files:
    """Paths are relative to the recipe's folder."""

    folder: Path
    workspace: Path

    def existing(self, value: object) -> str | None:
        """A path of the workspace, relative to the recipe, that is there and can be data."""
        if not isinstance(value, str) or not value or len(value) > 500 or set(value) & set("*?[\\"):
            return None
        path = PurePosixPath(value)
        if path.is_absolute() or path.suffix in _NOT_DATA or "\0" in value or not path.parts:
            return None
        place = self.folder / path
        try:
            if not place.exists():
                return None
        except OSError:
            return None
        resolved = place.resolve()
        holds_code = self.folder.resolve().is_relative_to(resolved)
        inside = resolved.is_relative_to(self.workspace)
        return str(path) if inside and not holds_code else None

    def is_configuration(self, path: str) -> bool:
        place = self.folder / path
        return (
            place.suffix in _CONFIGURATION
            and not place.name.startswith(".")
            and place.is_file()
            and not place.is_symlink()
            and ".." not in PurePosixPath(path).parts
            and place.stat().st_size <= _LARGEST_CONFIGURATION
        )

    def is_of_tools(self, path: str) -> bool:
        return PurePosixPath(path).name in _OF_TOOLS

    def configuration_beside(self, script: str, but: Collection[str]) -> set[str]:
        """Configuration next to a script, without JSON, which may as well be a result."""
        beside = self.folder / PurePosixPath(script).parent
        found = set()
        for item in beside.iterdir():
            path = item.relative_to(self.folder).as_posix()
            named = item.suffix != ".json" and item.name not in _OF_TOOLS
            if named and path not in but and self.is_configuration(path):
                found.add(path)
        return found

    def data_in(self, place: str, but: Collection[str]) -> list[str]:
        """Files right in a folder that look like data."""
        found = sorted(self.folder.joinpath(place).iterdir())
        known = {*but, "requirements.txt", "README.txt", "LICENSE.txt"}
        return [
            path.relative_to(self.folder).as_posix()
            for path in found
            if path.suffix in _DATA_SUFFIXES and path.is_file() and path.name not in known
        ]
