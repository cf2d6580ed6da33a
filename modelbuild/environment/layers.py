"""What an environment takes from a base interpreter: copies in the store, linked from there.

The base is not mounted. Only the locked distributions are in a stage's environment, so nothing
else of it can be imported; they stay as they were locked, and lie where bytecode and scripts
expect them, at every isolation level.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable
from pathlib import Path

from modelbuild.environment.base import BaseInterpreter
from modelbuild.environment.distribution import PACKAGES, PREFIX
from modelbuild.errors import DigestMismatchError, ModelbuildError
from modelbuild.spec.lock import LockedDistribution, LockedEnvironment
from modelbuild.store.copies import set_times
from modelbuild.store.stat_cache import StatCache
from modelbuild.store.store import Store
from modelbuild.store.tree import walk


def check_base(environment: LockedEnvironment, base: BaseInterpreter, store: Store) -> None:
    """Hold a base interpreter against the lock: names, versions, and what is on its disk.

    Raises DigestMismatchError, which names the distributions.
    """
    cache = StatCache.of(store.root)
    wrong = {}
    for locked in environment.distributions:
        found = _found(locked, base, cache)
        if found != (locked.version, str(locked.digest)):
            wrong[locked.name] = (f"{locked.version}  {locked.digest}", "  ".join(found))
    if wrong:
        raise base_changed(wrong, base)


def base_changed(wrong: dict[str, tuple[str, str]], base: BaseInterpreter) -> DigestMismatchError:
    """`wrong` has what is locked and what was found, by the name of the distribution."""
    first = next(iter(wrong))
    others = ", ".join([*wrong][1:])
    facts = [("locked", wrong[first][0]), ("found", wrong[first][1])]
    facts += [("also", others)] if others else []
    return DigestMismatchError(
        f"digest mismatch in '{first}' of the base interpreter",
        facts=[*facts, ("interpreter", str(base.python))],
        hint=f"If the change is intended: modelbuild lock --update {' '.join(wrong)}",
    )


def _found(locked: LockedDistribution, base: BaseInterpreter, cache: StatCache) -> tuple[str, ...]:
    distribution = base.distributions.get(locked.name)
    if distribution is None:
        return ("not there",)
    return distribution.version, str(distribution.tree(cache).digest)


def realise_distribution(
    locked: LockedDistribution,
    find_base: Callable[[], BaseInterpreter],
    store: Store,
    on_progress: Callable[[str], None],
) -> Path:
    """The distribution's object in the store: copied from the base interpreter, once.

    Raises DigestMismatchError where that has another one.
    """
    name = f"{locked.name}-{locked.version}"
    path = store.path(locked.digest, name)

    def waiting(holder: str) -> None:
        on_progress(f"waiting for {holder}, which is copying {name}")

    if path.exists():
        return path
    with store.lock(f"distribution-{locked.digest.store_key}", waiting):
        if not path.exists():
            base = find_base()
            distribution = base.distributions.get(locked.name)
            found = "not there"
            if distribution is not None:
                on_progress(f"copying {name} from the base interpreter")
                with store.temporary("distribution") as work:
                    distribution.copy(work / "tree")
                    set_times(work / "tree")
                    stored = store.publish(work / "tree", name)
                found = str(stored.tree.digest)
            if found != str(locked.digest):
                wanted = f"{locked.version}  {locked.digest}"
                raise base_changed({locked.name: (wanted, found)}, base)
    return path


def link_layer(layer: Path, folder: Path, packages: Path) -> None:
    """Put a distribution's files into an environment, as hard links, with a RECORD of them.

    Raises ModelbuildError where the environment has another file in that place.
    """
    record = []
    for relative, _, _ in walk(os.fsencode(layer)):
        part, _, rest = os.fsdecode(relative).partition("/")
        target = {PACKAGES: packages, PREFIX: folder}[part] / rest
        record.append(os.path.relpath(target, packages))
        _link(layer / os.fsdecode(relative), target)
    infos = {path.split("/")[0] for path in record if ".dist-info/" in path}
    for info in infos:
        lines = sorted([*record, f"{info}/RECORD"])
        (packages / info / "RECORD").write_text("".join(f"{_quoted(each)},,\n" for each in lines))


def _link(file: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.hardlink_to(file)
    except FileExistsError:
        if filecmp.cmp(file, target, shallow=False):
            return  # such as the __init__.py of a folder that several share
        raise ModelbuildError(
            "two packages have the same file, with different contents",
            facts=[("file", target.name), ("first", str(file)), ("second", str(target))],
        ) from None


def _quoted(path: str) -> str:
    return '"' + path.replace('"', '""') + '"' if "," in path or '"' in path else path
