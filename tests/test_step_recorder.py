"""What is recorded of real trainings in torch: that it tells where they went apart, that it changes
nothing in them, and that nothing breaks them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from test_bootstrap import Stage, make_stage, torch_stage  # noqa: F401

from modelbuild.environment.indexes import uv_variables
from modelbuild.verify.steps import BACKWARD, START, STEP, Record, Trace, _record, compare_steps

pytestmark = [pytest.mark.slow, pytest.mark.network]

MLP = """
import torch, torch.nn.functional as F
from torch import nn
X, Y = torch.randn(64, 8), torch.randint(0, 4, (64,))
model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.1), nn.ReLU(), nn.Linear(16, 4))
optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
scale = torch.ones(())
for step in range(1, 13):
    index = torch.randperm(64)[:16]
    x, y = X[index], Y[index]
    {batch}
    optimiser.zero_grad()
    loss = F.cross_entropy(model(x), y)
    {loss}
    loss.backward()
    {gradient}
    optimiser.step()
    {parameter}
    with torch.no_grad():
        model(X)
"""
PLACES = dict.fromkeys(("batch", "loss", "gradient", "parameter"), "pass")
HASH = """
import hashlib
parts = [part.detach().numpy().tobytes() for part in model.parameters()]
print(hashlib.sha256(b"".join(parts)).hexdigest())
"""


@dataclass
class Recorder:
    """Runs scripts as a stage does, and keeps what they recorded."""

    stage: Stage
    folder: Path
    done: dict[tuple[str, str], tuple[Path, str]] = field(default_factory=dict)

    def run(self, script: str, **request: object) -> tuple[Path, str]:
        """The trace folder, and what was printed: importing torch takes seconds, so once each."""
        key = (script, str(request))
        if key not in self.done:
            self.done[key] = self.fresh(script, **request)
        return self.done[key]

    def fresh(self, script: str, **request: object) -> tuple[Path, str]:
        trace = self.stage.root / "trace"
        shutil.rmtree(trace, ignore_errors=True)
        trace.mkdir()
        (trace / "request.json").write_text(json.dumps({"every": 1, **request}))
        source = self.stage.root / "src"
        source.mkdir(exist_ok=True)
        (source / "train.py").write_text(script)
        done = self.stage.run("/".join((str(source), "train.py")), cwd=self.folder)
        assert done.returncode == 0, done.stderr
        kept = Path(tempfile.mkdtemp(dir=self.folder), "trace")
        trace.rename(kept)
        return kept, done.stdout

    def difference(self, first: str, second: str) -> str:
        return compare_steps(self.run(first)[0], self.run(second)[0]).says


@pytest.fixture(scope="module")
def recorder(torch_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Recorder:  # noqa: F811
    return Recorder(torch_stage, tmp_path_factory.mktemp("recorded"))


def records(folder: Path, name: str = "steps-0.bin") -> list[Record]:
    with Trace(folder / name) as trace:
        return [
            _record(chunk[i : i + 44]) for chunk in trace.chunks() for i in range(0, len(chunk), 44)
        ]


def kinds(folder: Path, name: str = "steps-0.bin") -> list[int]:
    return [each.kind for each in records(folder, name)]


def notes(folder: Path) -> list[str]:
    return [
        line for path in sorted(folder.glob("notes-*")) for line in path.read_text().splitlines()
    ]


FAULTS = {
    "batch": (
        "if step == 5: x = x[[1, 0, *range(2, 16)]]; y = y[[1, 0, *range(2, 16)]]",
        "the batch (data order)",
    ),
    "loss": ("if step == 5: loss = loss * 1.0000002", "the loss (arithmetic of the forward pass)"),
    "gradient": (
        "if step == 5: model[0].bias.grad[3] *= -1",
        "the gradients (backward pass, or what changes them before the step)",
    ),
    "parameter": (
        "if step == 5: model[3].bias.data.neg_()",
        "the loss (arithmetic of the forward pass)",
    ),
}


@pytest.mark.parametrize("place", FAULTS)
def test_the_first_different_step_is_told_and_what_went_first(
    recorder: Recorder, place: str
) -> None:
    fault, what = FAULTS[place]
    step = 6 if place == "parameter" else 5  # it was changed after the step
    said = recorder.difference(MLP.format(**PLACES), MLP.format(**{**PLACES, place: fault}))
    assert said == f"first different step: {step} of 12: {what}"


@pytest.mark.parametrize(
    ("draw", "generator"),
    [
        ("import random; random.random()", "python"),
        ("import numpy; numpy.random.rand()", "numpy"),
        ("torch.rand(1)", "torch"),
    ],
)
def test_a_number_drawn_more_is_told_with_its_generator(
    recorder: Recorder, draw: str, generator: str
) -> None:
    plain = "import random, numpy\n" + MLP.format(**PLACES)
    other = plain.replace("loss.backward()", f"if step == 7: {draw}\n    loss.backward()")
    said = recorder.difference(plain, other)
    assert said == (
        f"first different step: 7 of 12: the random numbers of {generator} (random numbers)"
    )


def test_another_seed_differs_before_the_first_step(recorder: Recorder) -> None:
    other = MLP.format(**PLACES).replace("X, Y =", "torch.manual_seed(1)\nX, Y =")
    said = recorder.difference(MLP.format(**PLACES), other)
    assert said == (
        "first different step: before the first one: the random numbers of torch (random numbers)"
    )


def test_recording_changes_no_bit_and_two_recordings_are_the_same(recorder: Recorder) -> None:
    script = MLP.format(**PLACES) + HASH
    first, printed = recorder.run(script)
    second, _ = recorder.fresh(script)
    _, without = recorder.run(script, every=0)
    assert printed == without
    assert (first / "steps-0.bin").read_bytes() == (second / "steps-0.bin").read_bytes()
    assert compare_steps(first, second).says == (
        "all 12 steps are identical: the difference came after the last one"
    )


def test_with_every_0_nothing_is_recorded(recorder: Recorder) -> None:
    folder, _ = recorder.run(MLP.format(**PLACES), every=0)
    assert [path.name for path in folder.iterdir()] == ["request.json"]


def test_with_a_stride_gradients_and_parameters_are_left_out_in_between(recorder: Recorder) -> None:
    folder, _ = recorder.run(MLP.format(**PLACES), every=5)
    steps = [each for each in records(folder) if each.kind == STEP]
    assert [number for number, each in enumerate(steps, 1) if each.has & 12] == [1, 5, 10]
    assert all(each.has & 3 == 3 for each in steps)


ACCUMULATE = """
import torch
from torch import nn
model = nn.Linear(8, 4)
first, second = torch.optim.SGD([model.weight], lr=0.1), torch.optim.Adam([model.bias], lr=0.1)
for step in range(3):
    for part in range(4):
        model(torch.randn(5, 8)).square().mean().backward()
    first.step(), second.step(), first.zero_grad(), second.zero_grad()
"""


def test_accumulated_gradients_and_two_optimisers(recorder: Recorder) -> None:
    folder, _ = recorder.run(ACCUMULATE)
    start, step = [BACKWARD] * 3, [STEP, STEP]
    assert kinds(folder) == [*start, START, STEP, START, STEP, *(start + step) * 2]
    assert [each.source for each in records(folder) if each.kind == STEP] == [1, 2] * 3
    assert all(each.calls == 1 for each in records(folder) if each.kind == BACKWARD)


BY_HAND = """
import torch
from torch import nn
model = nn.Linear(8, 4)
for step in range(6):
    loss = model(torch.randn(5, 8)).square().mean()
    loss.backward()
    if step == 3 and {fault}: model.bias.grad.neg_()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
            p.grad = None
"""


def test_a_training_without_an_optimiser(recorder: Recorder) -> None:
    said = recorder.difference(BY_HAND.format(fault=False), BY_HAND.format(fault=True))
    assert said == ("first different step: 4 of 6: the parameters (arithmetic of the optimiser)")


SORTS = """
import torch
from torch import nn
table = nn.Embedding(50, 8, sparse=True)
conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
half = nn.Linear(8, 8).bfloat16()
sparse = torch.optim.SparseAdam(table.parameters())
line = nn.Linear(3, 1)
dense = torch.optim.LBFGS(line.parameters(), max_iter=3)
other = torch.optim.SGD([*half.parameters(), *conv.parameters()], lr=0.1)
class Both(nn.Module):
    def forward(self, given):
        return table(given["index"]).sum() + half(given["list"][0]).sum().float()
both = Both()
for step in range(3):
    index = torch.randint(0, 50, (6,))
    for each in (sparse, dense, other): each.zero_grad()
    given = [torch.randn(2, 8).bfloat16(), torch.eye(3).to_sparse()]
    both({"index": index, "list": given}).backward()
    sparse.step(), other.step()
    images = torch.randn(2, 5, 5, 3).permute(0, 3, 1, 2)
    conv(images[:, :, ::2]).square().mean().backward()
    def closure():
        dense.zero_grad()
        loss = line(images[0, :, 0].t()).square().mean()
        loss.backward()
        return loss
    dense.step(closure)
"""


def test_every_sort_of_tensor_is_recorded(recorder: Recorder) -> None:
    folders = [recorder.fresh(SORTS)[0], recorder.run(SORTS)[0]]
    assert notes(folders[0]) == []
    assert kinds(folders[0]).count(STEP) == 9
    first, second = (folder / "steps-0.bin" for folder in folders)
    assert first.read_bytes() == second.read_bytes()
    other = SORTS.replace("torch.eye(3)", "(torch.eye(3) * (-1 if step == 2 else 1))")
    assert recorder.difference(SORTS, other) == (
        "first different step: 7 of 9: the batch (data order)"
    )


COMPILED = """
import torch, torch.nn.functional as F
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
        self.b.register_forward_hook(lambda module, given, made: made * 2)
    def forward(self, x):
        return self.b(F.relu(self.a(x)))
model = Net()
compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(4):
    optimiser.zero_grad()
    compiled(torch.randn(5, 8)).square().mean().backward()
    optimiser.step()
"""


def test_a_compiled_model_stays_in_one_graph_and_is_recorded(recorder: Recorder) -> None:
    folder, printed = recorder.run(COMPILED + HASH)
    assert kinds(folder) == [START, STEP, STEP, STEP, STEP]
    assert all(each.calls == 1 for each in records(folder) if each.kind == STEP)
    assert printed == recorder.run(COMPILED + HASH, every=0)[1]


LOADED = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
if __name__ == "__main__":
    data = TensorDataset(torch.randn(32, 8))
    loader = DataLoader(data, batch_size=8, shuffle=True, num_workers=2)
    model = nn.Linear(8, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(2):
        for x, in loader:
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
"""


def test_workers_that_load_data_record_nothing(recorder: Recorder) -> None:
    folder, _ = recorder.run(LOADED)
    assert sorted(path.name for path in folder.iterdir()) == ["request.json", "steps-0.bin"]
    assert kinds(folder) == [START, *[STEP] * 8]


FORKED = """
import os, torch
from torch import nn
def train(steps):
    model = nn.Linear(8, 1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        model(torch.randn(4, 8)).square().mean().backward()
        optimiser.step()
train(3)
if os.fork() == 0:
    train(5)
else:
    os.wait()
    train(2)
"""


def test_a_forked_child_records_for_itself(recorder: Recorder) -> None:
    folder, _ = recorder.run(FORKED)
    (child,) = [path.name for path in folder.glob("steps-0.*.bin")]
    assert kinds(folder) == [START, STEP, STEP, STEP, START, STEP, STEP]
    assert kinds(folder, child) == [START, *[STEP] * 5]


@pytest.mark.parametrize(
    "harm",
    [
        "import shutil, os; shutil.rmtree(os.environ['MODELBUILD_ROOT'] + '/trace')",
        "import random; random._inst = None",
        "del optimiser.param_groups[0]['params'][0].grad; torch.Tensor.nbytes = None",
    ],
)
def test_whatever_happens_to_the_recorder_the_training_goes_on(
    recorder: Recorder, harm: str
) -> None:
    script = MLP.format(**{**PLACES, "batch": f"if step == 3:\n        {harm}"}) + HASH
    if "rmtree" in harm:
        script += "\nimport os; os.makedirs(os.environ['MODELBUILD_ROOT'] + '/trace')"
    _, printed = recorder.run(script)
    assert printed == recorder.run(MLP.format(**PLACES) + HASH, every=0)[1]


UNDONE = """
import torch

torch.use_deterministic_algorithms(False)
torch.backends.cudnn.benchmark = True
torch.set_num_threads(3)
"""


def test_settings_that_a_script_undid_are_noted_with_their_lines(recorder: Recorder) -> None:
    folder, _ = recorder.run(UNDONE)
    assert notes(folder) == [
        "the script turned off deterministic algorithms (train.py:4)",
        "the script turned on cudnn.benchmark (train.py:5)",
        "the script set torch to 3 threads instead of 1 (train.py:6)",
    ]


def test_settings_that_are_put_back_are_not_noted(recorder: Recorder) -> None:
    folder, _ = recorder.run(
        UNDONE + "torch.use_deterministic_algorithms(True)\n"
        "torch.backends.cudnn.benchmark = False; torch.set_num_threads(1)"
    )
    assert notes(folder) == []


ON_DEVICE = """
import gc
(tensors,) = [each for each in gc.get_objects() if type(each).__name__ == "Tensors"]
tensors.plain, tensors.elsewhere = (), lambda tensor: True
"""


@pytest.mark.parametrize("place", FAULTS)
def test_what_is_digested_on_a_device_tells_the_same(recorder: Recorder, place: str) -> None:
    """On a CPU, as if its tensors were elsewhere."""
    fault, what = FAULTS[place]
    step = 6 if place == "parameter" else 5
    plain = MLP.format(**PLACES).replace("scale =", f"{ON_DEVICE}scale =")
    other = MLP.format(**{**PLACES, place: fault}).replace("scale =", f"{ON_DEVICE}scale =")
    said = recorder.difference(plain, other)
    assert said == f"first different step: {step} of 12: {what}"
    assert recorder.run(plain + HASH)[1] == recorder.run(MLP.format(**PLACES) + HASH, every=0)[1]


MULTILINEAR = """
import gc, json, torch
torch.optim.SGD([torch.zeros(1, requires_grad=True)]).step()
(tensors,) = [each for each in gc.get_objects() if type(each).__name__ == "Tensors"]
device = tensors.device(torch.device("cpu"))
x = torch.randn(100, 34)
def of(*given):
    cell = device.put([device.sample(each) for each in given])
    return device.fetch()[cell]
swapped, sign, signs = x.clone(), x.clone(), x.clone()
swapped[[3, 9]] = x[[9, 3]]
sign[5, 5] *= -1
signs[:, ::2] *= -1
one, two = x.double(), x.double()
two[0, :2] *= -1
large = torch.arange(5_000_000)
found = [of(each) for each in (x, swapped, sign, signs, -x, x.T, x.flatten().flip(0))]
found += [of(one), of(two), of(-one), of(one, x), of(x, one)]
found += [of(x.bfloat16()), of(-x.bfloat16()), of(x > 0), of(x < 0), of(large), of(large.flip(0))]
print(len(found), len(set(found)), of(x) == found[0])
"""


def test_a_digest_on_a_device_sees_order_and_signs(recorder: Recorder) -> None:
    assert recorder.run(MULTILINEAR)[1] == "18 18 True\n"


FIT = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
X = np.random.rand(300, 8)
y = (X[:, 0] + X[:, 1] > 1).astype(int)
RandomForestClassifier(10).fit(X, y)
if {fault}: X = X[::-1]
pipe = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
print(pipe[-1].coef_.tobytes().hex())
"""


def test_each_outermost_fit_of_scikit_learn_is_a_step(tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "root")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(stage.python)]
    subprocess.run([*uv, "scikit-learn"], check=True, env=dict(os.environ) | uv_variables())
    recorder = Recorder(stage, tmp_path)
    said = recorder.difference(FIT.format(fault=False), FIT.format(fault=True))
    assert said == "first different fit: 2 of 2: the batch (data order)"
    plain = FIT.format(fault=False)
    assert recorder.run(plain)[1] == recorder.run(plain, every=0)[1]
    assert compare_steps(recorder.run(plain)[0], recorder.fresh(plain)[0]).difference is None
