"""The recipe digits with torch: by hand in the same environment, and as a stage.

By hand it runs twice over: with the settings of the stage (threads, instruction set, ...), which
leaves the tool's own cost; and with none, as most people run it, which adds the cost of numerics
that are the same on other machines.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from measure import ROUND, TOOL, Bench, Budget, Case, Command

from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import stage_variables

EPOCHS = 60
HAND = "by hand, with the stage's settings"
PLAIN = "by hand, with none"
OURS = "modelbuild build"
RECIPE = Path(__file__).parent.parent / "recipes" / "digits"


def main() -> None:
    bench = Bench(__doc__ or "")
    folder = bench.folder / "digits"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(RECIPE, folder)
    recipe = folder / "recipe.toml"
    text = recipe.read_text().partition("[stages.evaluate]")[0]
    # No two runs may have the same derivation: the second would have nothing to do.
    text = text.replace("[params]", '[params]\nrun = "first"')
    recipe.write_text(f'{text}env = {{ RUN = "{{params.run}}" }}\n')
    build: Command = [TOOL, "build", "--no-link"]
    bench.set_up(build, folder)
    objects = bench.store / "objects"
    python = next(objects.glob("*-cpython-*/bin/python3.11"))
    packages = next(objects.glob("*-env-*/lib/python3.11/site-packages"))
    data = next(packages.glob("sklearn/datasets/data/digits.csv.gz"))
    out = bench.folder / "out"
    out.mkdir(exist_ok=True)
    epochs = str(bench.scaled(EPOCHS))
    arguments = ["--lr", "0.002", "--epochs", epochs, "--batch-size", "32", "--dropout", "0.3"]
    command = [python, "train.py", "--data", data, *arguments, "--out", out]
    path = {"PYTHONPATH": str(packages)}
    settings = stage_variables(Hardware(threads=2), Determinism(seed=42))
    cases = [
        Case(name=HAND, command=command, folder=folder, environment={**settings, **path}),
        Case(name=PLAIN, command=command, folder=folder, environment=path),
        Case(
            name=OURS,
            command=[*build, "--set", f"params.epochs={epochs}", "--set", f"params.run={ROUND}"],
            folder=folder,
        ),
    ]
    budget = Budget(
        case=OURS,
        says="by hand, with the stage's settings, + 2 % + 0.3 s",
        limit=lambda medians: 1.02 * medians[HAND] + 0.3,
    )
    bench.group(f"digits for {epochs} epochs", cases, budget)


if __name__ == "__main__":
    main()
