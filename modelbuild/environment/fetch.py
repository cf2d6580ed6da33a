"""Locked packages onto the disk: uv installs exactly the locked files, checked by their hashes."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelbuild.environment.child import dying_with_us
from modelbuild.environment.indexes import uv_variables
from modelbuild.errors import DigestMismatchError, ModelbuildError, UnavailableError
from modelbuild.spec.lock import LockedEnvironment, LockedWheel
from modelbuild.spec.logins import without_logins

_SHOWN = ("Downloading ", "Building ")
"""Of uv's lines, those that tell why it takes long. A download's has its size."""
_NOT_FOR_US = ("UV_COMPILE_BYTECODE", "UV_NO_INSTALLER_METADATA", "UV_NO_VERIFY_HASHES")
"""Settings for the user's own environments: what comes out here must not depend on them."""
_NO_SPACE = "No space left on device"
_MISMATCH = re.compile(
    r"Hash mismatch for `(?P<name>[^=`]+)==.*?Computed:\s+(?P<found>sha256:[0-9a-f]{64})", re.DOTALL
)


@dataclass(frozen=True, kw_only=True, slots=True)
class InstallOrder:
    """What uv is to install, for what, and where."""

    environment: LockedEnvironment
    wheels: Sequence[LockedWheel]
    target: Sequence[str]
    """uv's options that say where: `--python`, `--target`, ..."""
    work: Path
    """A folder for the requirements file."""


def install(order: InstallOrder, on_progress: Callable[[str], None], *options: str) -> None:
    """Install from what is on this disk, else from wherever pip or uv are configured to look.

    Hard links to uv's cache are kept. Raises DigestMismatchError where a package has other
    bytes than locked, UnavailableError where it can't be had.
    """
    if not order.wheels:
        return
    requirements = order.work / "requirements.txt"
    requirements.write_text("".join(map(_requirement, order.wheels)))
    command = [*_command(order), "--requirements", str(requirements), *options]
    variables = uv_variables()
    for name in _NOT_FOR_US:
        variables.pop(name, None)
    refusals = []
    for places in _attempts(order.environment, variables):
        code, said = _run([*command, *places], variables, on_progress)
        if code == 0:
            return
        if "Hash mismatch" in said:
            raise _mismatch(said, order.environment)
        if _NO_SPACE in said:
            raise ModelbuildError(f"no space left in {order.work}", facts=_what(said))
        refusals.append(said)
    raise _unavailable(refusals, order, offline=bool(variables.get("UV_OFFLINE")))


def _requirement(wheel: LockedWheel) -> str:
    return f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n"


def _command(order: InstallOrder) -> list[str]:
    from uv import find_uv_bin

    environment = order.environment
    command = [find_uv_bin(), "pip", "install", "--require-hashes", "--no-deps"]
    command += ["--link-mode", "hardlink", "--no-compile-bytecode", "--color", "never"]
    command += ["--python-platform", environment.platform, *order.target]
    for wheel in order.wheels:
        command += ["--no-binary" if wheel.from_source else "--only-binary", wheel.name]
    return command


def _attempts(environment: LockedEnvironment, variables: Mapping[str, str]) -> list[list[str]]:
    """Options of one try after the other: this disk, the configured places, PyTorch's index."""
    if variables.get("UV_OFFLINE"):
        return [["--offline"]]
    tries: list[list[str]] = [["--offline"], []]
    if environment.backend != "none":
        tries.append(["--torch-backend", environment.backend])
    return tries


def _run(
    command: Sequence[str], variables: Mapping[str, str], on_progress: Callable[[str], None]
) -> tuple[int, str]:
    """The exit code of uv, and what it said."""
    said = []
    process = subprocess.Popen(
        command,
        env=dict(variables),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=dying_with_us(),
    )
    with process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line)
                if line.strip().startswith(_SHOWN):
                    on_progress(without_logins(line.strip()))
        except BaseException:
            process.kill()
            raise
    return process.returncode, "".join(said)


def _mismatch(said: str, environment: LockedEnvironment) -> ModelbuildError:
    found = _MISMATCH.search(said)
    wheel = environment.wheel(found["name"]) if found else None
    if found is None or wheel is None:
        return DigestMismatchError("a package has other bytes than locked", facts=_what(said))
    return DigestMismatchError(
        f"digest mismatch in package '{wheel.name}': {wheel.filename}",
        facts=[("locked", f"sha256:{wheel.sha256}"), ("found", found["found"])],
        hint=f"If the change is intended: modelbuild lock --update {wheel.name}",
    )


def _unavailable(
    refusals: Sequence[str], order: InstallOrder, *, offline: bool
) -> UnavailableError:
    """`refusals` are what uv said of each try. That this disk lacks it matters only alone."""
    wheels = order.wheels
    what = (
        f"package {wheels[0].name} {wheels[0].version}"
        if len(wheels) == 1
        else (f"the {len(wheels)} packages of environment {order.environment.key}")
    )
    hint = (
        "UV_OFFLINE is set: without it, uv also looks in the package indexes."
        if offline
        else "Make the package index reachable, or set UV_FIND_LINKS to a folder of wheels."
    )
    configured, *others = refusals[1:] or refusals
    facts = _what(configured)
    for other in others:
        facts += [
            ("with PyTorch's index", words) for _, words in _what(other) if other != configured
        ]
    return UnavailableError(f"cannot get {what}", facts=facts, hint=hint)


def _what(said: str) -> list[tuple[str, str]]:
    """uv's own words, from its error on, without credentials."""
    error = said[said.find("error:") :] if "error:" in said else said
    lines = [line.rstrip() for line in without_logins(error).splitlines() if line.strip()]
    return [("uv says", "\n".join(lines))]
