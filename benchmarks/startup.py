"""What each process of a stage pays at its start: for the bootstrap, for the preload library."""

from __future__ import annotations

import os
import shutil
import venv
from pathlib import Path

from measure import Bench, Case

import modelbuild.runtime
from modelbuild.sandbox.shipped_runtime import preload_library
from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import BOOTSTRAP_LINE, stage_variables

RUNTIME = Path(modelbuild.runtime.__file__).parent / "v1"
TIMES = 50


def environment(folder: Path) -> Path:
    """A virtual environment that loads the bootstrap from below MODELBUILD_ROOT."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder / "env", symlinks=True, with_pip=False)
    packages = next((folder / "env/lib").glob("python*/site-packages"))
    (packages / "modelbuild.pth").write_text(BOOTSTRAP_LINE + "\n")
    (folder / "runtime").symlink_to(RUNTIME)
    return folder / "env/bin/python"


def cases(bench: Bench, program: str, *, with_bootstrap: bool) -> list[Case]:
    """The program, started many times by a shell that is not pinned itself."""
    names = ("MODELBUILD_SEED", "MODELBUILD_THREADS", "PYTHONHASHSEED")
    variables = stage_variables(Hardware(), Determinism(seed=42))
    pins = " ".join(f"{name}={variables[name]}" for name in names)
    library = f"LD_PRELOAD={preload_library()}"
    prefixes = {
        "neither": "MODELBUILD_ROOT=/nowhere",
        "preload library": f"MODELBUILD_ROOT=/nowhere {library}",
    }
    if with_bootstrap:
        root = f"MODELBUILD_ROOT={bench.folder}"
        prefixes |= {"bootstrap": root, "both": f"{root} {library}"}
    loop = f"for i in $(seq {TIMES}); do env {pins} %s {program}; done"
    return [
        Case(name=name, command=["sh", "-c", loop % prefix], folder=bench.folder)
        for name, prefix in prefixes.items()
    ]


def main() -> None:
    bench = Bench(__doc__ or "")
    python = environment(bench.folder)
    assert preload_library().exists(), "modelbuild was installed without a compiler"
    os.environ.pop("LD_PRELOAD", None)
    bench.group(f"true, {TIMES} times", cases(bench, "/bin/true", with_bootstrap=False))
    title = f"Python, {TIMES} times"
    bench.group(title, cases(bench, f"{python} -c pass", with_bootstrap=True))


if __name__ == "__main__":
    main()
