"""The resolver pip-tools, for who needs pip's own choice of versions.

Its markers follow the interpreter that runs it, so it resolves only for a target like the host.
pip-compile chooses the versions and the digests that it accepts; uv, which installs them later,
says which files of those versions there are.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from modelbuild.environment.indexes import pip_settings, uv_variables
from modelbuild.errors import ModelbuildError, UnavailableError
from modelbuild.locking import uv
from modelbuild.locking.resolver import Question, Release
from modelbuild.locking.wheels import architecture
from modelbuild.spec.logins import without_logins
from modelbuild.spec.package_names import normalised_name

_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;\\]+)")
_FIRST_PIP_WITH_DATES = 26


def resolve(question: Question) -> tuple[Release, ...]:
    """The releases that pip-compile chooses, sorted by name.

    Raises UnavailableError where the target is another than the host: uv can resolve for it.
    """
    _check_target(question)
    unfit: uv.NoWheelError | None = None
    with TemporaryDirectory(prefix="modelbuild-") as name:
        folder = Path(name)
        interpreter = _interpreter(question, folder)
        while True:
            try:
                accepted = _compile(question, interpreter, folder)
            except ModelbuildError as error:
                raise unfit or error from None
            try:
                return _with_files(accepted, question)
            except uv.NoWheelError as error:
                # pip-compile takes wheels for the host, whose glibc may be newer than the target's.
                unfit = unfit or error
                excluded = f"{error.package}!={accepted[error.package][0]}"
                question = replace(question, constraints=(*question.constraints, excluded))


def _compile(
    question: Question, interpreter: list[str], folder: Path
) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and accepted SHA-256 digests by name."""
    command = [*interpreter, *_arguments(question, folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_variables())
    if done.returncode != 0:
        raise _error(done.stderr, question)
    return _accepted(folder / "requirements.txt")


def _check_target(question: Question) -> None:
    host = "linux" if sys.platform.startswith("linux") else sys.platform
    found = f"{host} on {platform.machine()}"
    wanted = f"linux on {architecture(question.platform)}"
    if found != wanted:
        raise _unavailable("resolves only for machines like this one", wanted, found)
    if question.torch_backend:
        raise _unavailable("takes torch from no other index", "PyTorch's own", "those of pip")
    pip = version("pip")
    if question.exclude_newer and int(pip.split(".")[0]) < _FIRST_PIP_WITH_DATES:
        raise _unavailable(
            "knows exclude-newer only with a newer pip",
            f"pip {_FIRST_PIP_WITH_DATES}",
            f"pip {pip}",
        )


def _unavailable(why: str, wanted: str, found: str) -> UnavailableError:
    return UnavailableError(
        f"the resolver pip-tools {why}",
        facts=[("wanted", wanted), ("found", found)],
        hint='uv resolves for any target: under [environment] write resolver = "uv"',
    )


def _interpreter(question: Question, folder: Path) -> list[str]:
    """A Python of the target's version that has pip-tools: ours, or a temporary one's."""
    # -P: a folder named `pip` or `piptools` in the current folder is not meant.
    if platform.python_version() == question.python:
        return [sys.executable, "-P"]
    import uv as uv_package

    tools = [f"{name}=={version(name)}" for name in ("pip-tools", "pip")]
    environment, program = folder / "venv", uv_package.find_uv_bin()
    python = ("--no-python-downloads", "--python", question.python)
    for command in (
        [program, "venv", "--quiet", *python, str(environment)],
        [program, "pip", "install", "--quiet", "--python", str(environment), *tools],
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=uv_variables()
        )
        if done.returncode != 0:
            found = without_logins(done.stderr.rpartition("error: ")[2].strip())[:500]
            raise _unavailable("needs a Python of the target's version", question.python, found)
    return [str(environment / "bin" / "python")]


def _arguments(question: Question, folder: Path) -> Iterator[str]:
    requirements, constraints = folder / "requirements.in", folder / "constraints.txt"
    output = folder / "requirements.txt"
    requirements.write_text("\n".join(question.requires) + "\n", encoding="utf-8")
    pins = [f"{name}=={pinned}" for name, pinned in sorted(question.pins.items())]
    output.write_text("\n".join(pins) + "\n", encoding="utf-8")
    yield from ("-m", "piptools", "compile", str(requirements), "--output-file", str(output))
    yield from ("--generate-hashes", "--no-reuse-hashes", "--allow-unsafe", "--strip-extras")
    yield from ("--no-header", "--no-annotate", "--no-config", "--quiet")
    yield from ("--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host")
    no_binary = [f"--no-binary={name}" for name in question.from_source]
    yield from ("--pip-args", " ".join(["--only-binary=:all:", *no_binary]))
    lines = [*question.constraints]
    lines += [f"-c {path}" for path in pip_settings().get("constraint", "").split()]
    if lines:
        constraints.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield from ("--constraint", str(constraints))
    if question.exclude_newer:
        yield from ("--uploaded-prior-to", uv.end_of_day(question.exclude_newer))


def _variables() -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _accepted(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    accepted: dict[str, tuple[str, frozenset[str]]] = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if pin := _PIN.match(line):
            name = normalised_name(pin["name"])
            digests = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            accepted[name] = (pin["version"], digests)
    return accepted


def _with_files(
    accepted: dict[str, tuple[str, frozenset[str]]], question: Question
) -> tuple[Release, ...]:
    """The files of the accepted versions, wherever uv finds them, which pip accepts."""
    pinned = replace(
        question,
        requires=tuple(f"{name}=={chosen}" for name, (chosen, _) in sorted(accepted.items())),
        constraints=(),
        pins={},
    )
    # pip looks at all indexes, so the files may be in any; the digests say that they are pip's.
    found = uv.resolve(pinned, "--no-deps", "--index-strategy", "unsafe-best-match")
    releases = []
    for release in found:
        digests = accepted[release.name][1]
        files = tuple(f for f in release.files if f.sha256 is None or f.sha256 in digests)
        if not files:
            raise ModelbuildError(
                f"pip and uv find different files of {release.name} {release.version}",
                facts=[
                    ("pip", ", ".join(f"sha256:{digest}" for digest in sorted(digests))),
                    ("uv", ", ".join(f"sha256:{file.sha256}" for file in release.files)),
                ],
                hint="Both read the same configuration: see pip config list, and UV_* variables.",
            )
        releases.append(replace(release, files=files))
    return tuple(releases)


def _error(stderr: str, question: Question) -> ModelbuildError:
    text = without_logins(stderr)
    if missing := re.search(r"No matching distribution found for ([A-Za-z0-9._-]+)", text):
        # pip does not say what there is instead; uv does.
        try:
            uv.resolve(replace(question, requires=(missing[1],), constraints=(), pins={}))
        except ModelbuildError as error:
            return error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reasons = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return ModelbuildError(
        "packages can't be resolved",
        facts=[("pip-compile says", "\n".join(reasons or lines[-3:])[:2000])],
    )
