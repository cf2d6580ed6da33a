"""From the modules that a program imports to the packages that bring them."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from modelbuild.draft.script import Module
from modelbuild.spec.package_names import DISTRIBUTIONS, normalised_name
from modelbuild.spec.recipe_environment import is_common_requirement


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """The packages of a Python environment."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """By normalised name."""
    modules: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Top-level module to the normalised names of the packages that bring a part of it."""
    requires: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Each package's requirements, as it states them."""

    @classmethod
    def below(cls, prefix: Path) -> Installed:
        """What is installed in a virtual environment; nothing where it is none."""
        return cls.on(str(path) for path in prefix.glob("lib/python3*/site-packages"))

    @classmethod
    def on(cls, search: Iterable[str]) -> Installed:
        """What is installed in folders, the first of several versions."""
        from importlib.metadata import distributions

        versions: dict[str, str] = {}
        modules: dict[str, set[str]] = {}
        requires: dict[str, tuple[str, ...]] = {}
        folders = [path for path in search if path]
        for distribution in distributions(path=folders) if folders else ():
            name = normalised_name(distribution.metadata["Name"] or "")
            if name in versions:
                continue
            versions[name] = distribution.version
            requires[name] = tuple(distribution.requires or ())
            tops = {path.parts[0].partition(".")[0] for path in distribution.files or ()}
            for top in tops:
                modules.setdefault(top, set()).add(name)
        found = {top: frozenset(names) for top, names in modules.items()}
        return cls(versions=versions, modules=found, requires=requires)

    def with_all_required(self, names: Iterable[str]) -> set[str]:
        """These packages and all that they need in turn, as far as it is installed."""
        from packaging.requirements import InvalidRequirement, Requirement

        found: set[str] = set()
        waiting = [name for name in names if name in self.versions]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            for text in self.requires.get(name, ()):
                try:
                    each = Requirement(text)
                except InvalidRequirement:
                    continue
                needed = each.marker is None or each.marker.evaluate({"extra": ""})
                if needed and normalised_name(each.name) in self.versions:
                    waiting.append(normalised_name(each.name))
        return found


def packages_for(
    modules: Iterable[Module], own: Iterable[str], installed: Installed
) -> tuple[str, ...]:
    """The packages that bring what is imported, without the standard library and `own` modules.

    What a program can do without is taken only where it is installed.
    """
    left_out = {*own, *sys.stdlib_module_names, "__main__"}
    found = set()
    for module in modules:
        if module.name.partition(".")[0] in left_out:
            continue
        name = package_of(module.name, installed)
        known = name in installed.versions
        if known or (not module.optional and is_common_requirement(name)):
            found.add(name)
    return tuple(sorted(found))


def requirement(package: str, installed: Installed) -> str:
    """`torch==2.13.0` where that is what is installed, else the name alone."""
    version = installed.versions.get(package, "").partition("+")[0]
    pinned = f"{package}=={version}"
    return pinned if version and is_common_requirement(pinned) else package


def import_folders(modules: Collection[str], code: Iterable[str]) -> set[str]:
    """The folders, `.` among them, from which these files were imported under these names.

    A package may have no file.
    """
    found = set()
    for path in map(PurePosixPath, code):
        parts = module_parts(path)
        start = name_start(parts, modules)
        if start is None:
            start = name_start(parts[:-1], modules)
        if start is not None:
            found.add("/".join(parts[:start]) or ".")
    return found


def module_parts(path: PurePath) -> Sequence[str]:
    """Of a Python file, the last of which is the module's name, for `__init__.py` the package's."""
    name = path.name.removesuffix(".py")
    return path.parts[:-1] if name == "__init__" else (*path.parts[:-1], name)


def name_start(parts: Sequence[str], modules: Collection[str]) -> int | None:
    """Where the full name begins under which it was imported, the longest of several."""
    return next((at for at in range(len(parts)) if ".".join(parts[at:]) in modules), None)


def package_of(module: str, installed: Installed) -> str:
    """What is installed knows best; then the table; then the module's own name."""
    parts = module.split(".")
    names = [".".join(parts[:end]) for end in range(len(parts), 0, -1)]
    known = next(
        (DISTRIBUTIONS[name] for name in names if name in DISTRIBUTIONS), normalised_name(parts[0])
    )
    bringing = installed.modules.get(parts[0], frozenset())
    return known if known in bringing or not bringing else min(bringing)
