"""What a base interpreter has, for a resolver and for the lock.

The resolver gets a stand-in for each distribution: a wheel that holds nothing but name, version
and what it requires of the others. So it fits everything else to what is there, asks no index for
that, and needs none where the base has it all.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from modelbuild.environment.base import BaseInterpreter
from modelbuild.environment.distribution import Distribution
from modelbuild.environment.layers import check_base
from modelbuild.errors import InvalidInputError
from modelbuild.locking.metadata import licence
from modelbuild.locking.requirements import CONSTRAINT
from modelbuild.spec.lock import LockedDistribution, LockedEnvironment
from modelbuild.spec.package_names import normalised_name
from modelbuild.store.stat_cache import StatCache
from modelbuild.store.store import Store, write_atomically

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class LockableBase:
    """A base interpreter, as locking sees it."""

    interpreter: BaseInterpreter
    where: str
    """The place in the recipe that says what is required."""
    store: Store

    def check(self, previous: LockedEnvironment | None, update: Collection[str] | None) -> None:
        """What is locked of the base and is not to move must be there, as it is locked.

        `update` is as of `resolve_environment`. Raises DigestMismatchError.
        """
        if previous is None or (update is not None and not update):
            return
        staying = [each for each in previous.distributions if each.name not in (update or ())]
        check_base(replace(previous, distributions=tuple(staying)), self.interpreter, self.store)

    def stand_ins(self, requires: Sequence[str]) -> dict[str, str]:
        """URLs of wheels for a resolver, by name. `requires` are as of `requirements_of`.

        Raises InvalidInputError where the base has another version than is required.
        """
        present = {
            name: each
            for name, each in self.interpreter.distributions.items()
            if _is_version(each.version)
        }
        _check_versions(requires, present, self.where, self.interpreter.python)
        folder = self.store.root / "wheel-metadata" / "base"
        return {name: _stand_in(each, present, folder) for name, each in present.items()}

    def lock(self, names: Sequence[str]) -> tuple[LockedDistribution, ...]:
        """Raises UnavailableError for a distribution whose files can't be told."""
        cache = StatCache.of(self.store.root)
        return tuple(_locked(self.interpreter.distributions[name], cache) for name in sorted(names))

    def missing(self, names: Collection[str]) -> Iterator[str]:
        """What these distributions require and the base lacks, in words for people."""
        present = self.interpreter.distributions
        for name in sorted(names):
            for requirement in _requires(present[name]):
                there = normalised_name(requirement.name) in present
                if not there and _applies(requirement, self.interpreter.version):
                    yield f"{name} of the base interpreter requires {requirement}, which it lacks"


def _locked(distribution: Distribution, cache: StatCache) -> LockedDistribution:
    tree = distribution.tree(cache)
    return LockedDistribution(
        name=distribution.name,
        version=distribution.version,
        digest=tree.digest,
        files=tree.files,
        bytes=tree.bytes,
        licence=licence(distribution.headers.as_string()),
    )


def _check_versions(
    requires: Sequence[str], present: Mapping[str, Distribution], where: str, python: Path
) -> None:
    from packaging.requirements import Requirement

    for text in requires:
        requirement = Requirement(text.removeprefix(CONSTRAINT))
        found = present.get(normalised_name(requirement.name))
        if found and not requirement.specifier.contains(found.version, prereleases=True):
            raise InvalidInputError(
                f"{where}: the base interpreter has another '{found.name}' than is required",
                facts=[
                    ("wanted", text.removeprefix(CONSTRAINT)),
                    ("found", f"{found.version}  ({python})"),
                ],
                hint="What the base has is taken as it is, and no wheel takes its place: require "
                "that version, change it there, or use another interpreter.",
            )


def _stand_in(distribution: Distribution, present: Mapping[str, Distribution], folder: Path) -> str:
    """The URL of a wheel without contents, made once.

    Of what it requires, the base's own is required at any version: the base is taken as it is,
    with what its makers left out or mixed. What only an extra requires stays as it is.
    """
    name, version = distribution.name, distribution.version
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {e}" for e in distribution.headers.get_all("Provides-Extra", [])]
    for requirement in _requires(distribution):
        if normalised_name(requirement.name) in present:
            requirement.specifier = type(requirement.specifier)()
            requirement.url = None
        elif "extra" not in str(requirement.marker):
            continue
        lines.append(f"Requires-Dist: {requirement}")
    metadata = "\n".join([*lines, ""])
    place = folder / blake3(metadata.encode()).hexdigest()[:20]
    stem = f"{name.replace('-', '_')}-{version}"
    path = place / f"{stem}-py3-none-any.whl"
    if not path.exists():
        place.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _wheel(f"{stem}.dist-info", metadata))
    return path.absolute().as_uri()


def _wheel(info: str, metadata: str) -> bytes:
    import io

    about = "Wheel-Version: 1.0\nGenerator: modelbuild\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in (("METADATA", metadata), ("WHEEL", about), ("RECORD", "")):
            archive.writestr(zipfile.ZipInfo(f"{info}/{name}", _EPOCH), text)
    return content.getvalue()


def _requires(distribution: Distribution) -> list[Requirement]:
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for text in distribution.headers.get_all("Requires-Dist", []):
        try:
            found.append(Requirement(text))
        except InvalidRequirement:
            continue  # of older tools: not for us to mend
    return found


def _applies(requirement: Requirement, python: str) -> bool:
    """Whether it is required here without any extra."""
    environment = {
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "extra": "",
    }
    return requirement.marker is None or requirement.marker.evaluate(environment)


def _is_version(text: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
