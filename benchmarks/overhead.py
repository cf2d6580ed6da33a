"""A training of a minute: by hand, and as a stage with the same interpreter and packages."""

from __future__ import annotations

from measure import ROUND, TOOL, Bench, Budget, Case, Command

SECONDS = 60
HAND = "by hand"
OURS = "modelbuild build"
RECIPE = """\
schema = 1

[model]
name = "overhead"

[environment]
python = "3.11"
packages = []

[code]
include = ["train.py"]

[params]
steps = 1000
run = "first"

[stages.train]
run = ["python", "train.py", "{params.steps}", "{out}/model.bin", "{params.run}"]
"""
TRAIN = """\
import array, random, sys, time

steps = int(sys.argv[1])
numbers = random.Random(1)
rows = [[numbers.random() for _ in range(256)] for _ in range(64)]
weights = array.array("d", [0.0] * 256)
started = time.perf_counter()
for step in range(steps):
    row = rows[step % 64]
    error = sum(w * x for w, x in zip(weights, row)) - 1
    for i, x in enumerate(row):
        weights[i] -= 0.001 * error * x
    if step % (steps // 100 or 1) == 0:
        print("step", step, "error", error)
with open(sys.argv[2], "wb") as file:
    for _ in range(8192):
        file.write(weights.tobytes())
print("steps a second", steps / (time.perf_counter() - started))
"""


def main() -> None:
    bench = Bench(__doc__ or "")
    folder = bench.folder / "training"
    folder.mkdir(exist_ok=True)
    (folder / "model.lock").unlink(missing_ok=True)
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "train.py").write_text(TRAIN)
    build: Command = [TOOL, "build", "--no-link"]
    bench.set_up(build, folder)
    python = next((bench.store / "objects").glob("*-cpython-*/bin/python3.11"))

    def by_hand(steps: int) -> Case:
        model = bench.folder / "model.bin"
        command: Command = [python, "train.py", str(steps), model, "by hand"]
        return Case(name=HAND, command=command, folder=folder)

    tried = bench.scaled(20_000, least=100)
    seconds, _ = bench.run(by_hand(tried))
    steps = int(tried / seconds * bench.options.scale * SECONDS)
    settings = ["--set", f"params.steps={steps}", "--set", f"params.run={ROUND}"]
    cases = [by_hand(steps), Case(name=OURS, command=[*build, *settings], folder=folder)]
    budget = Budget(
        case=OURS,
        says="by hand + 2 % + 0.3 s",
        limit=lambda medians: 1.02 * medians[HAND] + 0.3,
    )
    bench.group(f"a training of {steps:,} steps that writes 16 MiB", cases, budget)


if __name__ == "__main__":
    main()
