"""What it costs to record every operation of one step: that step against the median of the others.

Two small models, each in its own process under the bootstrap, with the steps traced as in every
build. The recorded step is over when its file is opened; with the writing of the file, after which
the process ends, it is shown too. What is loaded for it is loaded in the step before.
The score of the faults is printed by a test: pytest -s tests/test_first_operation.py -k matrix
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from measure import TOOL, Bench, Budget, Command

from modelbuild.runtime import __file__ as runtime
from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import stage_variables

STEP = 20
TRAINING = """
import builtins, os, sys, time
import torch
from torch import nn
torch.manual_seed(0)
class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1000, 128)
        layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
        self.layers, self.out = nn.TransformerEncoder(layer, 2), nn.Linear(128, 10)
    def forward(self, values):
        return self.out(self.layers(self.embed(values)).mean(1))
if sys.argv[1] == "CNN":
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
    )
    values = torch.randn(64, 1, 8, 8)
else:
    model, values = Encoder(), torch.randint(0, 1000, (32, 64))
labels = torch.randint(0, 10, (len(values),))
optimiser = torch.optim.AdamW(model.parameters())
times, began = [], 0.0
leave, plain_open, written = os._exit, open, []
def opened(path, *more, **named):
    if "/trace/operations-" in str(path):
        written.append(time.perf_counter() - began)
    return plain_open(path, *more, **named)
def report(code):
    done = time.perf_counter() - began
    os.write(1, f"{sorted(times)[len(times) // 2]} {written[0]} {done}".encode())
    leave(code)
builtins.open = opened
os._exit = report
for step in range(40):
    began = time.perf_counter()
    loss = nn.functional.cross_entropy(model(values), labels)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    times.append(time.perf_counter() - began)
"""


def main() -> None:
    bench = Bench(__doc__ or "")
    build: Command = [TOOL, "build", "--no-link"]
    recipe = Path(__file__).parent.parent / "recipes" / "digits"
    bench.set_up(["cp", "-rT", recipe, bench.folder / "digits"], bench.folder)
    bench.set_up(build, bench.folder / "digits")
    for kind in ("CNN", "transformer"):
        if not bench.wants(kind):
            continue
        rounds = [measured(bench, kind) for _ in range(bench.options.runs)]
        budget = Budget(
            case="recorded",
            says="1.6 times the traced step",
            limit=lambda medians: 1.6 * medians["traced"],
        )
        bench.report(f"{kind}: a step with all its operations", "s", rounds, budget)


def measured(bench: Bench, kind: str) -> dict[str, float]:
    """Seconds of the traced steps, their median, of the recorded one, and with its file."""
    root = bench.folder / "root"
    bench.away(root)
    (root / "trace").mkdir(parents=True)
    (root / "src").mkdir()
    (root / "runtime").symlink_to(Path(runtime).parent / "v1")
    request = {"every": 1, "explain": {"step": STEP, "knob": None}}
    (root / "trace/request.json").write_text(json.dumps(request))
    (root / "src/train.py").write_text(TRAINING)
    objects = bench.store / "objects"
    python = next(objects.glob("*-cpython-*/bin/python3.11"))
    packages = next(objects.glob("*-env-*/lib/python3.11/site-packages"))
    start = f"import site; site.addsitedir({str(packages)!r}); import sys, runpy; "
    start += f"sys.argv = sys.argv[1:]; runpy.run_path({str(root / 'src/train.py')!r})"
    variables = stage_variables(Hardware(threads=1), Determinism(seed=42))
    done = subprocess.run(
        [python, "-c", start, "train.py", kind],
        env={**variables, "MODELBUILD_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    traced, recorded, written = map(float, done.stdout.split())
    return {"traced": traced, "recorded": recorded, "recorded, and its file": written}


if __name__ == "__main__":
    main()
