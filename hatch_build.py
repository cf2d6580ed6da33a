"""Builds the preload library of modelbuild/runtime with the package, where there is a compiler.

Without one the wheel is pure: modelbuild works, and says what is then not pinned.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

RUNTIME = Path("modelbuild/runtime/v1")
FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-pthread", "-s")


class CustomBuildHook(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        library = build_preload(Path(self.root, RUNTIME))
        if library is not None:
            build_data["artifacts"].append(f"/{RUNTIME}/{library.name}")
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"


def build_preload(runtime: Path) -> Path | None:
    """Compile preload.c into its folder, in the place of any older library."""
    source = runtime / "preload.c"
    for older in runtime.glob("preload-*.so"):
        older.unlink()
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler or (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return None
    # The name is what modelbuild looks for: sandbox/shipped_runtime.py.
    library = runtime / f"preload-{sha256(source.read_bytes()).hexdigest()[:16]}.so"
    temporary = library.with_suffix(f".{os.getpid()}")
    done = subprocess.run([*compiler.split(), *FLAGS, "-o", temporary, source], check=False)
    if done.returncode != 0:
        temporary.unlink(missing_ok=True)
        print("modelbuild: built without its preload library", file=sys.stderr)
        return None
    temporary.replace(library)
    return library
