"""The base interpreter: a Python of this machine whose distributions an environment lies on.

Recipe and lock say that there is one, and what is in it; where it is, is the user's
configuration: the location `interpreter`, else `python3` on PATH.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from modelbuild.environment.distribution import Distribution
from modelbuild.errors import UnavailableError
from modelbuild.spec.package_names import normalised_name

VARIABLE = "MODELBUILD_LOCATION_INTERPRETER"
_LOCATION = "interpreter"
_HINT = f"""\
To name another one, write these lines into modelbuild/config.toml in $XDG_CONFIG_HOME or ~/.config:
  [locations]
  {_LOCATION} = "/path/to/bin/python3"
or set {VARIABLE}=/path/to/bin/python3"""

# -I: neither the user's own packages nor PYTHONPATH, as in a stage.
_PROBE = """
import json, os, sys, sysconfig
own = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
own |= {os.path.join(folder, "lib-dynload") for folder in own}
version = ".".join(map(str, sys.version_info[:3]))
folders = [folder for folder in sys.path if os.path.isdir(folder) and folder not in own]
print(json.dumps([sys.implementation.name, version, folders]))
"""


@dataclass(frozen=True, kw_only=True)
class BaseInterpreter:
    """An interpreter of this machine, and where it finds packages."""

    python: Path
    version: str
    folders: tuple[Path, ...] = field(repr=False)
    """In the order in which it looks."""

    @cached_property
    def distributions(self) -> Mapping[str, Distribution]:
        """Those that it would import, by normalised name."""
        found: dict[str, Distribution] = {}
        for folder in self.folders:
            for entry in sorted(os.listdir(folder)):
                stem, dot, kind = entry.rpartition(".")
                name = normalised_name(stem.split("-")[0])
                if kind in ("dist-info", "egg-info") and dot and name not in found:
                    found[name] = Distribution(name=name, info=folder / entry, folder=folder)
        return found


def find_base(wanted: str, locations: Mapping[str, Path]) -> BaseInterpreter:
    """The base interpreter of this machine, which must be `wanted`: `3.11` or `3.11.7`.

    Raises UnavailableError.
    """
    python = _place(locations)
    done = subprocess.run(
        [str(python), "-I", "-B", "-c", _PROBE],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    if done.returncode != 0:
        raise UnavailableError(
            f"the base interpreter does not run: {python}",
            facts=[("found", done.stderr.strip()[-500:] or f"exit code {done.returncode}")],
            hint=_HINT,
        )
    implementation, version, folders = json.loads(done.stdout.splitlines()[-1])
    if implementation != "cpython" or not f"{version}.".startswith(f"{wanted}."):
        found = f"{implementation.replace('cpython', 'CPython')} {version}  ({python})"
        raise UnavailableError(
            "the base interpreter is another Python than the recipe's",
            facts=[("wanted", f"CPython {wanted}"), ("found", found)],
            hint=_HINT,
        )
    return BaseInterpreter(python=python, version=version, folders=tuple(map(Path, folders)))


def _place(locations: Mapping[str, Path]) -> Path:
    import shutil

    named = locations.get(VARIABLE) or locations.get(_LOCATION)
    found = shutil.which(named or "python3")
    if found is None:
        what = f"there is no program at {named}" if named else "there is no python3 on PATH"
        raise UnavailableError(
            f"the base interpreter is not on this machine: {what}", facts=[], hint=_HINT
        )
    return Path(found)
