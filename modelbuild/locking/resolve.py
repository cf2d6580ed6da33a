"""From requirements to one locked environment: what is locked stays, one file a package."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modelbuild.errors import DigestMismatchError, ModelbuildError
from modelbuild.locking import pip_tools, uv
from modelbuild.locking.base import LockableBase
from modelbuild.locking.metadata import describe_files
from modelbuild.locking.requirements import CONSTRAINT
from modelbuild.locking.resolver import OfferedFile, Question, Release
from modelbuild.locking.wheels import choose_file, target_tags
from modelbuild.spec.lock import LockedDistribution, LockedEnvironment, LockedWheel
from modelbuild.spec.recipe import Device, Environment

Resolver = Callable[[Question], tuple[Release, ...]]
RESOLVERS: Mapping[str, Resolver] = {"uv": uv.resolve, "pip-tools": pip_tools.resolve}

_ACCELERATOR = re.compile(r"nvidia-.+|cuda-.+|pytorch-triton.*|.+-cu1\d(0?\d)?")


def resolve_environment(
    environment: Environment,
    requires: Sequence[str],
    python: str,
    device: Device,
    previous: LockedEnvironment | None,
    update: Collection[str] | None,
    *,
    cache: Path | None = None,
    on_message: Callable[[str], None] = lambda _: None,
    base: LockableBase | None = None,
) -> LockedEnvironment:
    """Resolve `requires` (as of `requirements_of`) for the declared target, never the host.

    `python` is an exact version. The versions and files of `previous` are kept, except of the
    packages that `update` names; None: all are kept; empty: none is. `cache` is a folder for what
    was read of wheels. `on_message` hears of what a person should know and the lock doesn't say.
    What `base` has is taken from there, as it is.
    `interpreters` of the result is empty.

    Raises DigestMismatchError where a file that stays locked has other bytes now,
    UnavailableError where a package has no file for the target.
    """
    if base:
        base.check(previous, update)
    kept = _kept(previous, update)
    question = Question(
        requires=tuple(text for text in requires if not text.startswith(CONSTRAINT)),
        constraints=tuple(
            text.removeprefix(CONSTRAINT) for text in requires if text.startswith(CONSTRAINT)
        ),
        python=python,
        platform=environment.platform,
        pins={name: wheel.version for name, wheel in kept.items()},
        from_source=tuple(sorted(environment.from_source)),
        exclude_newer=environment.exclude_newer,
        base=base.stand_ins(requires) if base else {},
    )
    releases = releases_for_device(RESOLVERS[environment.resolver], question, device, on_message)
    from_index = [release for release in releases if release.name not in question.base]
    wheels = _locked(from_index, question, kept, cache)
    _report_moves(kept, wheels, on_message)
    names = [release.name for release in releases if release.name in question.base]
    distributions = base.lock(names) if base else ()
    for words in base.missing(names) if base else ():
        on_message(words)
    return LockedEnvironment(
        python=python,
        platform=environment.platform,
        backend=backend_of([*wheels, *distributions]),
        wheels=wheels,
        base=environment.base,
        distributions=distributions,
    )


def backend_of(packages: Sequence[LockedWheel | LockedDistribution]) -> str:
    """`cpu`, `cu130`, `rocm6.4`, ...; `none` where nothing comes in builds for accelerators."""
    versions = {package.name: package.version for package in packages}
    labels = {_local(version) for version in versions.values()}
    if found := sorted(label for label in labels if re.fullmatch(r"cu\d+|rocm[\d.]+|xpu", label)):
        return found[-1]
    for name, version in versions.items():
        if re.fullmatch(r"cuda-toolkit|nvidia-cuda-runtime(-cu\d+)?", name):
            major, minor, *_ = [*version.split("."), "0"]
            return f"cu{major}{minor}"
    suffixes = [re.search(r"-cu(1\d)$", name) for name in versions if _ACCELERATOR.match(name)]
    if any(suffixes):
        return max(f"cu{match[1]}" for match in suffixes if match)
    return "cpu" if "torch" in versions or "cpu" in labels else "none"


# -- what stays -----------------------------------------------------------------------------------


def _kept(
    previous: LockedEnvironment | None, update: Collection[str] | None
) -> dict[str, LockedWheel]:
    if previous is None or (update is not None and not update):
        return {}
    return {wheel.name: wheel for wheel in previous.wheels if wheel.name not in (update or ())}


def _locked(
    releases: Sequence[Release],
    question: Question,
    kept: Mapping[str, LockedWheel],
    cache: Path | None,
) -> tuple[LockedWheel, ...]:
    """One file of each release: the one that is locked already, else the best one."""
    tags = target_tags(question)
    locked: dict[str, LockedWheel] = {}
    chosen: dict[Release, OfferedFile] = {}
    for release in releases:
        before = kept.get(release.name)
        source = release.name in question.from_source
        if before and before.from_source == source and _still_offered(before, release):
            locked[release.name] = before
        else:
            chosen[release] = choose_file(release, tags, question)
    facts = describe_files(tuple(chosen.values()), cache)
    for (release, file), known in zip(chosen.items(), facts, strict=True):
        locked[release.name] = LockedWheel(
            name=release.name,
            version=release.version,
            filename=file.filename,
            sha256=known.sha256,
            bytes=known.bytes,
            licence=known.licence,
        )
    return tuple(locked[release.name] for release in releases)


def _still_offered(before: LockedWheel, release: Release) -> bool:
    """Whether the release has the locked file, with the locked bytes."""
    offered = next((file for file in release.files if file.filename == before.filename), None)
    if offered is None or offered.sha256 is None:
        return False
    if offered.sha256 != before.sha256:
        raise DigestMismatchError(
            f"digest mismatch in package '{before.name}': {before.filename} was replaced",
            facts=[("locked", f"sha256:{before.sha256}"), ("found", f"sha256:{offered.sha256}")],
            hint="A release's files never change honestly; ask whoever runs the index. "
            f"If the change is intended: modelbuild lock --update {before.name}",
        )
    return True


def _report_moves(
    kept: Mapping[str, LockedWheel],
    wheels: Sequence[LockedWheel],
    on_message: Callable[[str], None],
) -> None:
    for wheel in wheels:
        before = kept.get(wheel.name)
        if before and before.version != wheel.version:
            on_message(
                f"{wheel.name}: {before.version} was locked, {wheel.version} is now: the "
                "requirements or the configured indexes no longer allow the former"
            )
        elif before and before.filename != wheel.filename:
            on_message(
                f"{wheel.name} {wheel.version}: {before.filename} was locked and is no longer "
                f"offered, {wheel.filename} is now"
            )


# -- the declared device --------------------------------------------------------------------------


def releases_for_device(
    resolver: Resolver, question: Question, device: Device, on_message: Callable[[str], None]
) -> tuple[Release, ...]:
    """The releases for the declared device, where builds of them for it can be had.

    The configured places come first; a build for another device makes us look further.
    """
    releases = resolver(question)
    unfit = _unfit(releases, question, device)
    if not unfit:
        return releases
    try:
        second = resolver(_asking_for(device, question, unfit))
    except ModelbuildError as error:
        reason = dict(error.facts).get("uv says", error.summary).splitlines()[0]
    else:
        if len(_unfit(second, question, device)) < len(unfit):
            return second
        reason = "no other build is to be had"
    names = ", ".join(sorted(unfit, key=lambda name: name != "torch")[:3])
    more = f" and {len(unfit) - 3} more" if len(unfit) > 3 else ""
    on_message(f'device = "{device}", but builds for another are locked: {names}{more} ({reason})')
    return releases


def _asking_for(device: Device, question: Question, unfit: Mapping[str, str]) -> Question:
    """The question to ask where the configured places gave builds for another device."""
    if device is Device.CPU:
        return replace(question, torch_backend="cpu")
    others = tuple(f"{name}!={version}" for name, version in unfit.items())
    return replace(
        question,
        constraints=(*question.constraints, *others),
        pins={name: version for name, version in question.pins.items() if name not in unfit},
    )


def _unfit(releases: Sequence[Release], question: Question, device: Device) -> dict[str, str]:
    """Packages, with versions, in builds for another device than the declared one."""
    versions = {each.name: each.version for each in releases if each.name not in question.base}
    if device is not Device.CPU:
        return {name: version for name, version in versions.items() if _local(version) == "cpu"}
    unfit = {n: v for n, v in versions.items() if _ACCELERATOR.fullmatch(n) or _gpu_build(v)}
    torch = versions.get("torch")
    # Without a label, x86-64 builds of torch hold CUDA or ask for it; others may be for CPUs.
    if torch and _local(torch) != "cpu" and (unfit or question.platform.startswith("x86_64")):
        unfit["torch"] = torch
    return unfit


def _gpu_build(version: str) -> bool:
    return re.fullmatch(r"cu\d+|rocm.*|xpu", _local(version)) is not None


def _local(version: str) -> str:
    return version.partition("+")[2]
