"""What it costs to record every step of a training: trace-every = 1 beside 0.

The recipes digits and chars, and a perceptron of ten small layers whose steps take a millisecond or
two: the worst case, since what is recorded of a step takes nearly the same time for all of them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from measure import ROUND, TOOL, Bench, Budget, Case, Command

RECIPES = Path(__file__).parent.parent / "recipes"
NOT, EVERY = "trace-every = 0", "trace-every = 1"
SETTING_UP = "first"

TINY = """\
schema = 1

[model]
name = "tiny"

[environment]
python = "3.11"
packages = ["torch==2.13.0"]

[code]
include = ["*.py"]

[params]
steps = 10000

[determinism]
seed = 42

[stages.train]
run = ["python", "train.py", "{params.steps}", "{out}"]
"""
PERCEPTRON = """\
import sys

import torch
from torch import nn
from torch.nn.functional import cross_entropy

layers = [layer for _ in range(10) for layer in (nn.Linear(64, 64), nn.ReLU())]
model = nn.Sequential(*layers)
optimiser = torch.optim.AdamW(model.parameters())
inputs, labels = torch.randn(3200, 64), torch.randint(0, 64, (3200,))
for step in range(int(sys.argv[1])):
    rows = slice(32 * (step % 100), 32 * (step % 100) + 32)
    optimiser.zero_grad()
    cross_entropy(model(inputs[rows]), labels[rows]).backward()
    optimiser.step()
torch.save(model.state_dict(), sys.argv[2] + "/model.pt")
"""


def recipe(bench: Bench, name: str, every: str) -> Path:
    """A folder with the recipe, its last stage cut off, that records as it is told."""
    folder = bench.folder / f"{name}-{every[-1]}"
    shutil.rmtree(folder, ignore_errors=True)
    if name == "tiny":
        folder.mkdir()
        (folder / "recipe.toml").write_text(TINY)
        (folder / "train.py").write_text(PERCEPTRON)
    else:
        shutil.copytree(RECIPES / name, folder)
    file = folder / "recipe.toml"
    text = file.read_text().partition("[stages.evaluate]")[0]
    text = text.replace("[determinism]", f"[determinism]\n{every}")
    # No two runs may have the same derivation: the second would have nothing to do.
    text = text.replace("[params]", '[params]\nrun = "first"')
    file.write_text(text.rstrip() + '\nenv = { RUN = "{params.run}" }\n')
    return folder


def compare(bench: Bench, name: str, length: str, count: int) -> None:
    build: Command = [TOOL, "build", "--no-link"]
    title = f"{name}, {length} = {bench.scaled(count)}"
    if not bench.wants(title):
        return
    cases = []
    for every in (NOT, EVERY):
        folder = recipe(bench, name, every)
        # The stride is no part of a derivation: without a label of its own, the second case would
        # find the first one's output valid and train nothing.
        label = f"every-{every[-1]}"
        bench.set_up(settings(build, length, 1, f"{label}-{SETTING_UP}"), folder)
        check_recorded(bench, name, every)
        command = settings(build, length, bench.scaled(count), f"{label}-{ROUND}")
        cases.append(Case(name=every, command=command, folder=folder))
    budget = Budget(case=EVERY, says="1.02 x without", limit=lambda medians: 1.02 * medians[NOT])
    bench.group(title, cases, budget)


def settings(build: Command, length: str, count: int, run: str) -> Command:
    return [*build, "--set", f"params.{length}={count}", "--set", f"params.run={run}"]


def check_recorded(bench: Bench, name: str, every: str) -> None:
    """Stop unless the last build trained, and recorded what its case says."""
    logs = sorted(
        bench.store.glob(f"logs/*/{name}/train/*.log"), key=lambda log: log.stat().st_mtime
    )
    if not logs:
        sys.exit(f"{name}, {every}: nothing was trained")
    recorded = bool(list(logs[-1].with_suffix(".trace").glob("steps-*.bin")))
    if recorded != (every == EVERY) or len(logs) != (2 if every == EVERY else 1):
        sys.exit(f"{name}, {every}: {len(logs)} trainings, the last one recorded: {recorded}")


def main() -> None:
    bench = Bench(__doc__ or "")
    compare(bench, "digits", "epochs", 40)
    compare(bench, "chars", "steps", 300)
    compare(bench, "tiny", "steps", 10_000)


if __name__ == "__main__":
    main()
