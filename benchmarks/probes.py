"""What the probes of a machine cost besides importing what they probe, with the recipe digits."""

from __future__ import annotations

import shutil
from pathlib import Path

from measure import TOOL, Bench, Budget, Case

from modelbuild.sandbox.shipped_runtime import current_runtime, runtime_folder
from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import stage_variables

RECIPE = Path(__file__).parent.parent / "recipes" / "digits"
IMPORTS = "import numpy, torch"
PROBES = "import and probe"


def main() -> None:
    bench = Bench(__doc__ or "")
    folder = bench.folder / "digits"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(RECIPE, folder)
    bench.set_up([TOOL, "build", "--no-link"], folder)
    objects = bench.store / "objects"
    python = next(objects.glob("*-cpython-*/bin/python3.11"))
    packages = next(objects.glob("*-env-*/lib/python3.11/site-packages"))
    (folder / "out").mkdir()
    environment = {
        **stage_variables(Hardware(threads=2), Determinism()),
        "PYTHONPATH": str(packages),
        "MODELBUILD_ROOT": str(folder),
    }
    program = runtime_folder(current_runtime()) / "probes.py"
    cases = [
        Case(name=name, command=command, folder=folder, environment=environment)
        for name, command in (
            (IMPORTS, [python, "-c", "import numpy, torch"]),
            (PROBES, [python, program]),
        )
    ]
    budget = Budget(
        case=PROBES,
        says="2 s besides the imports",
        limit=lambda medians: medians[IMPORTS] + 2,
    )
    bench.group("The probes of one environment", cases, budget)


if __name__ == "__main__":
    main()
