"""The resolver uv: `uv pip compile`, which resolves for any target on any host."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from modelbuild.environment.indexes import uv_variables
from modelbuild.errors import ModelbuildError, UnavailableError
from modelbuild.locking.resolver import OfferedFile, Question, Release
from modelbuild.spec.logins import without_logins
from modelbuild.spec.package_names import distribution_of

_UNREACHABLE = ("Failed to fetch", "error sending request", "network was disabled", "dns error")


class NoWheelError(UnavailableError):
    """A package has no wheel for the target."""

    def __init__(self, package: str, found: str, question: Question) -> None:
        """`found` says what there is instead."""
        names = ", ".join(f'"{name}"' for name in sorted({*question.from_source, package}))
        if meant := distribution_of(package):
            hint = _other_name(package, meant)
        elif found.startswith("only a source distribution"):
            hint = f"To build it from source, write under [environment]: from-source = [{names}]"
        else:
            hint = (
                "Only the first configured index that has the package is asked. If that has a "
                "source distribution, it can be built, with this line under [environment]: "
                f"from-source = [{names}]"
            )
        wanted = f"CPython {question.python_minor}, {question.platform}"
        super().__init__(
            f"package '{package}' has no wheel for the recipe's target",
            facts=[("wanted", wanted), ("found", found)],
            hint=hint,
        )
        self.package = package


def resolve(question: Question, *options: str) -> tuple[Release, ...]:
    """The releases that uv chooses, sorted by name. `options` are for `uv pip compile`.

    Raises NoWheelError where a package has no file for the target, ModelbuildError otherwise.
    """
    import tomllib

    import uv

    with TemporaryDirectory(prefix="modelbuild-") as name:
        folder = Path(name)
        command = [uv.find_uv_bin(), *_arguments(question, folder), *options]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=_variables(question)
        )
        if done.returncode != 0:
            raise resolution_error(done.stderr, question)
        answer = tomllib.loads((folder / "pylock.toml").read_text(encoding="utf-8"))
        releases = [_release(package, folder) for package in answer.get("packages", ())]
    return tuple(sorted(releases, key=lambda release: release.name))


def _arguments(question: Question, folder: Path) -> Iterator[str]:
    """The command line, with its files written into `folder`."""
    requirements, constraints = folder / "requirements.in", folder / "constraints.txt"
    requirements.write_text("\n".join(question.requires), encoding="utf-8")
    if question.pins:  # uv keeps the versions of the output file that it finds
        (folder / "pylock.toml").write_text(_preferences(question.pins), encoding="utf-8")
    yield from ("pip", "compile", str(requirements), "--output-file", str(folder / "pylock.toml"))
    yield from ("--format", "pylock.toml", "--no-header", "--no-annotate", "--quiet")
    yield from ("--python", sys.executable, "--python-version", question.python)
    yield from ("--python-platform", question.platform, "--only-binary", ":all:")
    for name in question.from_source:
        yield from ("--no-binary", name)
    if narrowing := [*question.constraints, *_stand_ins(question.base)]:
        constraints.write_text("\n".join(narrowing), encoding="utf-8")
        yield from ("--constraints", str(constraints))
    if question.exclude_newer:
        yield from ("--exclude-newer", end_of_day(question.exclude_newer))
    if question.torch_backend:
        yield from ("--torch-backend", question.torch_backend)


def _stand_ins(base: Mapping[str, str]) -> Iterator[str]:
    """A constraint with a URL: whatever requires the name gets this, and no index is asked."""
    yield from (f"{name} @ {url}" for name, url in sorted(base.items()))


def _variables(question: Question) -> dict[str, str]:
    variables = uv_variables(resolving=True)
    if question.exclude_newer:
        variables.pop("UV_EXCLUDE_NEWER", None)
    return variables | {"NO_COLOR": "1", "UV_NO_WRAP": "1", "UV_NO_PROGRESS": "1"}


def _preferences(pins: Mapping[str, str]) -> str:
    packages = [f'[[packages]]\nname = "{n}"\nversion = "{v}"\n' for n, v in sorted(pins.items())]
    return "\n".join(['lock-version = "1.0"\ncreated-by = "modelbuild"\n', *packages])


def end_of_day(moment: str) -> str:
    """A date as the UTC time at which it ends: uv and pip would take the local time zone's."""
    from datetime import date, timedelta

    try:
        day = date.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{day + timedelta(days=1)}T00:00:00Z"


def _release(package: Mapping[str, Any], folder: Path) -> Release:
    files = [*package.get("wheels", ())] or [package.get("sdist") or package["archive"]]
    return Release(
        name=package["name"],
        version=package["version"],
        files=tuple(_offered(file, folder) for file in files),
    )


def _offered(file: Mapping[str, Any], folder: Path) -> OfferedFile:
    url = file.get("url") or (folder / file["path"]).resolve().as_uri()
    return OfferedFile(
        url=url,
        filename=file.get("name") or unquote(urlsplit(url).path.rpartition("/")[2]),
        sha256=file.get("hashes", {}).get("sha256"),
        bytes=file.get("size"),
    )


# -- what uv says when it can't ------------------------------------------------------------------


def resolution_error(stderr: str, question: Question) -> ModelbuildError:
    """uv's reason in our words where it is about wheels or the network, else in its own."""
    text = without_logins(stderr)
    if no_wheel := _no_wheel(text):
        return NoWheelError(*no_wheel, question)
    if any(sign in text for sign in _UNREACHABLE):
        return ModelbuildError(
            "packages can't be resolved: an index can't be reached, and what it has is not cached",
            facts=[("uv says", _reason(text))],
            hint="Check the network, and the indexes of pip's and uv's configuration.",
        )
    unknown = re.search(r"Because (\S+) was not found", text)
    if unknown and (meant := distribution_of(unknown[1])):
        return ModelbuildError(
            f"there is no package '{unknown[1]}' on the index", hint=_other_name(unknown[1], meant)
        )
    return ModelbuildError(
        "packages can't be resolved",
        facts=[("uv says", _reason(text))],
        hint="What the base interpreter has is taken as it is, and no wheel takes its place."
        if question.base
        else None,
    )


def _other_name(module: str, package: str) -> str:
    return f"The package with the module '{module}' is called {package}: write that in its place."


def _no_wheel(text: str) -> tuple[str, str] | None:
    """Name and what there is, from uv's hints."""
    if hint := re.search(r"Wheels are available for `(\S+)` \(v(\S+)\) on .*?: (.*)", text):
        return hint[1], f"version {hint[2]} for {hint[3].replace('`', '')}"
    if hint := re.search(r"only found wheels for `(\S+)` \(v(\S+)\) with .*? tags?: (.*)", text):
        return hint[1], f"version {hint[2]} for {hint[3].replace('`', '')}"
    if hint := re.search(r"Wheels are required for `(\S+)` because building", text):
        versions = re.search(rf"{re.escape(hint[1])}==(\S+) has no usable wheels", text)
        version = f" of version {versions[1]}" if versions else ""
        return hint[1], f"only a source distribution{version}"
    return None


def _reason(text: str) -> str:
    """uv's error without prefixes, and without the lines that say only that there is one."""
    lines = [re.sub(r"^(error|cause|hint): ", "", line.strip()) for line in text.splitlines()]
    idle = ("warning:", "Request failed after", "No solution found when resolving")
    return "\n".join(line for line in lines if line and not line.startswith(idle))[:2000]
