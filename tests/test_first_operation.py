"""Where two trainings went apart: a fault of each sort in each kind of model, found by its line."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import RECIPE, TRAIN, Tiny
from test_bootstrap import RUNTIME, Stage, torch_stage  # noqa: F401

from modelbuild.errors import InvalidInputError
from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import stage_variables
from modelbuild.store.store import Store
from modelbuild.verify.explain import Run, Search, explain, locate
from modelbuild.verify.first_operation import FirstOperation, first_difference
from modelbuild.verify.recordings import Recording, parse_recordings, read_recordings
from modelbuild.verify.steps import compare_steps

FAULTS_FOLDER = Path(__file__).parent / "faults"
TRAINING = FAULTS_FOLDER / "training.py"
STEP = 3

KINDS = ("MLP", "CNN", "transformer", "LSTM")
FAULTS = {
    "worker seed": ("DataLoader.__next__",),
    "swapped pair": ("DataLoader.__next__",),
    "changed sign": ("faults::scale",),
    "atomic add": ("aten::index_put", "aten::_index_put_impl_", "aten::index_put_"),
    "more threads": ("aten::sum",),
    "unsorted listing": ("os.listdir",),
    "uninitialised buffer": ("aten::add",),
    "time branch": ("aten::mul",),
    "other operations": ("aten::sigmoid", "aten::tanh"),
}
"""And the operations that may be named for each."""


def lines_of(fault: str) -> list[str]:
    """The lines of the training that say that the fault is on them."""
    lines = TRAINING.read_text().splitlines()
    marked = [(number, line.partition("# FAULT ")[2]) for number, line in enumerate(lines, 1)]
    return [f"training.py:{number}" for number, names in marked if fault in names.split(", ")]


@dataclass
class Trainings:
    """Runs trainings under the bootstrap, in forks of one process that has loaded torch."""

    server: subprocess.Popen[str]
    folder: Path
    runs: int = 0

    def run(self, kind: str, fault: str, side: int, request: dict[str, object]) -> Path:
        """The folder of the trace."""
        self.runs += 1
        root = self.folder / str(self.runs)
        (root / "trace").mkdir(parents=True)
        (root / "runtime").symlink_to(RUNTIME)
        (root / "src").symlink_to(FAULTS_FOLDER)
        (root / "trace/request.json").write_text(json.dumps(request))
        job = {"root": str(root), "arguments": [kind, fault, str(side)]}
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        assert self.server.stdout.readline() == "0\n"
        return root / "trace"

    def runner(self, kind: str, fault: str, sides: tuple[int, ...]) -> Run:
        """Runs up to a step, of the sides in turn."""
        turns = itertools.cycle(sides)

        def run(step: int, knob: str | None) -> Sequence[Recording]:
            request: dict[str, object] = {"every": 0, "explain": {"step": step, "knob": knob}}
            trace = self.run(kind, fault, next(turns), request)
            return read_recordings(trace / "operations-0.jsonl")

        return run

    def find(self, kind: str, fault: str) -> FirstOperation | None:
        """As `verify --explain` does: the step from the traces, then the operation."""
        traces = [self.run(kind, fault, side, {"every": 1}) for side in (0, 1)]
        compared = compare_steps(*traces).difference
        if compared is None:
            return None
        run = self.runner(kind, fault, (0, 1))
        search = Search(step=compared.step, run=run, say=lambda _: None)
        return locate(search, search.record())


@pytest.fixture(scope="module")
def trainings(torch_stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:  # noqa: F811
    files = tempfile.mkdtemp(dir="/dev/shm")
    variables = stage_variables(Hardware(threads=1), Determinism(seed=42))
    variables |= {"MODELBUILD_ROOT": "/nonexistent", "FILES": f"{files}/list"}
    server = subprocess.Popen(
        [torch_stage.python, FAULTS_FOLDER / "server.py"],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield Trainings(server, tmp_path_factory.mktemp("runs"))
    server.communicate()
    shutil.rmtree(files)


def right(fault: str, found: FirstOperation | None) -> bool:
    return (
        found is not None
        and found.step == STEP
        and found.operation in FAULTS[fault]
        and found.line in lines_of(fault)
    )


@pytest.mark.slow
@pytest.mark.network
def test_the_faults_of_the_matrix_are_found(trainings: Trainings) -> None:
    results = {}
    for kind in KINDS:
        for fault in FAULTS:
            found = trainings.find(kind, fault)
            results[kind, fault] = right(fault, found)
            print(f"{kind:12} {fault:21} {'right' if results[kind, fault] else 'WRONG'}  {found}")
    assert sum(results.values()) >= 0.95 * len(results)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("kind", "fault"),
    [("MLP", "atomic add"), ("LSTM", "swapped pair"), ("transformer", "other operations")],
)
def test_a_fault_is_found_by_its_operation_and_line(
    trainings: Trainings, kind: str, fault: str
) -> None:
    found = trainings.find(kind, fault)
    assert right(fault, found), found


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_show_again_is_said(trainings: Trainings, kind: str) -> None:
    explained = explain(STEP, trainings.runner(kind, "none", (0,)), lambda _: None)
    assert str(explained) == (
        "step 3: the difference did not show again in 6 runs: a rare race, or something that"
        " differed between the two builds"
    )
    assert not explained.confirmed


@pytest.mark.slow
@pytest.mark.network
def test_a_race_is_confirmed_with_one_thread(trainings: Trainings) -> None:
    said: list[str] = []
    explained = explain(STEP, trainings.runner("MLP", "atomic add", (0,)), said.append)
    (line,) = lines_of("atomic add")
    assert str(explained) == (
        f"step 3, operation aten::index_put (backward), {line}"
        "   confirmed: the difference vanishes with one thread"
    )
    assert said[2] == "run 3 up to step 3, with one thread"
    assert explained.runs == 8


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("fault", "sides", "tried", "knob"),
    [
        ("stubborn race", (0,), ("threads",), "deterministic"),
        ("worker race", (0,), (), "workers"),
        ("unsorted listing", (0, 1), (), "listings"),
        ("reused memory", (0, 1), (), "memory"),
    ],
)
def test_each_knob_takes_away_its_difference(
    trainings: Trainings, fault: str, sides: tuple[int, ...], tried: tuple[str, ...], knob: str
) -> None:
    explained = explain(STEP, trainings.runner("MLP", fault, sides), lambda _: None)
    assert explained.first is not None
    assert (explained.first.line,) == tuple(lines_of(fault))
    assert (explained.tried, explained.knob, explained.confirmed) == (tried, knob, True)


@pytest.mark.slow
@pytest.mark.network
def test_memory_that_nothing_filled_is_told_with_the_line_that_allocated_it(
    trainings: Trainings,
) -> None:
    run = trainings.runner("MLP", "reused memory", (0, 1))
    (read,) = lines_of("reused memory")
    lines = TRAINING.read_text().splitlines()
    made = next(number for number, line in enumerate(lines, 1) if "return torch.empty(" in line)
    assert str(explain(STEP, run, lambda _: None)) == (
        f"step 3, operation aten::add (forward), {read}: it reads memory that nothing has filled,"
        f" allocated at training.py:{made}   confirmed: the difference vanishes when new memory is"
        " filled"
    )


@pytest.mark.slow
@pytest.mark.network
def test_the_clock_is_confirmed_when_it_is_frozen(trainings: Trainings) -> None:
    explained = explain(STEP, trainings.runner("MLP", "clock", (0,)), lambda _: None)
    assert explained.first is not None
    assert (explained.first.line,) == tuple(lines_of("clock"))
    assert (explained.knob, explained.confirmed) == ("clock", True)


@pytest.mark.slow
@pytest.mark.network
def test_a_cause_that_no_knob_takes_away_is_only_likely(trainings: Trainings) -> None:
    explained = explain(STEP, trainings.runner("MLP", "changed sign", (0, 1)), lambda _: None)
    assert explained.tried == ("deterministic", "memory")
    assert str(explained).endswith(
        "   likely: the operation gives other results for the same inputs"
    )


@pytest.mark.slow
@pytest.mark.network
def test_a_training_that_ends_before_the_step_is_recorded_so_far(trainings: Trainings) -> None:
    (recording,) = trainings.runner("MLP", "none", (0,))(6, None)
    assert not recording.complete
    assert recording.operations == ()
    trace = trainings.run("MLP", "none", 0, {"every": 0, "explain": {"step": 7, "knob": None}})
    assert not list(trace.glob("operations-*"))


CHANGES = """
import runpy, sys, torch
def beside(name):
    return runpy.run_path(f"{sys.argv[1]}/{name}.py", {"beside": beside})
memory = beside("tensor_digests")["Memory"](torch)

def seen(change, values):
    other = change(values.clone())
    assert not values.equal(other)
    digests = [memory.digest(each.data_ptr(), each.nbytes) for each in (values, values, other)]
    return digests[0] == digests[1] != digests[2]

def negate(*places):
    def change(values):
        values[list(places)] *= -1
        return values
    return change

def swap(one, other, count=1):
    def change(values):
        kept = values[one : one + count].clone()
        values[one : one + count] = values[other : other + count]
        values[other : other + count] = kept
        return values
    return change

class Listening(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        raise AssertionError(function)

values = torch.ones(100_000)
address, size, found = values.data_ptr(), values.nbytes, []
with Listening():
    memory.digest(address, size)
dtypes = (torch.float64, torch.float32, torch.bfloat16)
random = torch.randn(100_003, dtype=torch.float64)
for dtype in dtypes:
    values = random.to(dtype)
    for change in (
        negate(0), negate(5), negate(5, 7), negate(5, 7, 9, 11), negate(1, 1025), negate(-1),
        negate(5, 1036), negate(5, 2067), negate(6, 1039), negate(6, 2072), negate(5, 1036, 1038),
        swap(5, 7), swap(0, 4096), swap(5, 60_000), swap(9, 1040), swap(9, 1042), swap(9, 2071),
        swap(0, 1024, 1024), swap(0, 1031, 1031), swap(0, 2066, 1033), swap(0, 30_000, 30_000),
        lambda values: values.flip(0), lambda values: values.roll(1),
        lambda values: values.roll(1024), lambda values: values.roll(1031),
        lambda values: values.roll(2066), lambda values: -values,
    ):
        found.append(seen(change, values))
    signs = torch.where(torch.arange(1033 * 256 + 9) % 2 == 0, 1, -1).to(dtype)
    masks = (random > 1).to(dtype)
    for values in (signs, masks):
        found.append(seen(lambda values: -values, values))
        found.append(seen(lambda values: values.roll(1), values))
found.append(seen(negate(5, 5 + 1031, 5 + 1033, 5 + 1031 + 1033), random.abs()))
far = torch.randn(2_300_000, dtype=torch.float64)
for distance in (1031 * 1023, 1033 * 1023, 1031 * 1033):
    found.append(seen(swap(7, 7 + distance), far))
    found.append(seen(swap(0, distance, 4096), far))
    found.append(seen(negate(7, 7 + distance), far))
for size in (32_769, 32_777, 40_000, 65_537):
    bytes_ = torch.randint(0, 255, (size,), dtype=torch.uint8)
    found += [seen(negate(place), bytes_) for place in (0, 3, 4, 7, size // 2, -9, -5, -4, -1)]
print(len(found), found.count(True))
"""


@pytest.mark.slow
@pytest.mark.network
def test_a_digest_sees_moved_values_and_changed_signs(torch_stage: Stage) -> None:  # noqa: F811
    done = torch_stage.run("-c", CHANGES, str(RUNTIME))
    assert (done.stderr, done.stdout) == ("", "139 139\n")


WRITES = """
import torch
from torch import nn
weight = nn.Parameter(torch.ones(1))
optimiser = torch.optim.SGD([weight])
optimiser.step()
values, norm, wide = torch.ones(100, 100), nn.BatchNorm1d(9000), torch.randn(4, 9000)
mean, fused = norm.running_mean, [[values], [torch.ones(100, 100)], [torch.ones(100, 100)]]
def read():
    values.neg()
    mean.abs()
for write in (
    lambda: None,
    lambda: values.t()[3:, 5:].mul_(2),
    lambda: values.detach().data[7].view(-1).zero_(),
    lambda: torch.add(values, 1, out=values),
    lambda: torch._foreach_add_([values], 3),
    lambda: torch._fused_sgd_(*fused, weight_decay=0.0, momentum=0.9, lr=0.1, dampening=0.0,
        nesterov=False, maximize=False, is_first_step=False),
    lambda: norm(wide),
    lambda: norm(wide + 1),
    lambda: torch.ops.aten._native_batch_norm_legit(wide, None, None, mean, norm.running_var,
        True, 0.1, 1e-5),
):
    read()
    write()
read()
optimiser.step()
"""


@pytest.mark.slow
@pytest.mark.network
def test_a_kept_digest_is_forgotten_when_the_memory_is_written_to(torch_stage: Stage) -> None:  # noqa: F811
    """Through a view, by several tensors at once, or by an operation that does not say so."""
    trace = torch_stage.root / "trace"
    trace.mkdir()
    (trace / "request.json").write_text('{"every": 0, "explain": {"step": 2, "knob": null}}')
    done = torch_stage.run("-c", WRITES)
    assert (done.returncode, done.stderr) == (0, "")
    (recording,) = read_recordings(trace / "operations-0.jsonl")
    shutil.rmtree(trace)
    values, means = (
        [each.inputs for each in recording.operations if each.op == f"aten::{name}"]
        for name in ("neg", "abs")
    )
    assert [one == other for one, other in itertools.pairwise(values)] == [
        *(True, False, False, False, False, False, True, True, True)
    ]
    assert [one == other for one, other in itertools.pairwise(means)] == [*[True] * 6, *[False] * 3]


# Recordings


HEAD = {"step": 3, "complete": True, "knob": None, "torch": "2.13.0", "threads": 2}


def operation(number: int, **fields: object) -> dict[str, object]:
    plain = {"op": f"aten::op{number}", "line": f"train.py:{number}", "phase": "forward"}
    sides = {"inputs": [number], "sources": [number - 1], "outputs": [number + 1]}
    return {**plain, **sides, **fields}


def difference(mine: list[dict], theirs: list[dict]) -> str:
    recordings = [
        next(iter(parse_recordings(json.dumps(each) for each in [HEAD, *records])))
        for records in (mine, theirs)
    ]
    return str(first_difference(*recordings))


def test_the_first_operation_with_equal_inputs_and_unequal_outputs_is_named() -> None:
    mine = [operation(1), operation(2), operation(3)]
    theirs = [operation(1), operation(2, outputs=[99]), operation(3, inputs=[99], outputs=[98])]
    assert difference(mine, mine) == "None"
    assert difference(mine, theirs) == "step 3, operation aten::op2 (forward), train.py:2"


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        (["forward", "backward", "forward", "optimizer"], "between backward and step"),
        (["forward", "backward", "forward", "backward", "optimizer"], "forward"),
        (["backward", "optimizer", "forward", "backward", "optimizer"], "forward"),
        (["optimizer", "backward", "forward"], "forward"),
    ],
)
def test_what_changes_gradients_after_the_backward_pass_is_no_forward_operation(
    phases: list[str], told: str
) -> None:
    """Accumulated passes, an optimiser's step before it, and a step that never comes."""
    mine = [operation(10 * number, phase=phase) for number, phase in enumerate(phases)]
    theirs = [dict(each) for each in mine]
    theirs[2]["outputs"] = [999]
    found = difference(mine, theirs)
    assert found == f"step 3, operation aten::op20 ({told}), train.py:20"


def test_what_differs_and_changes_no_result_is_harmless() -> None:
    """Such as an operation's work space, and memory that is overwritten."""
    mine = [operation(1, outputs=[2, 50]), operation(2, inputs=[2, 50], sources=[0, 0])]
    theirs = [operation(1, outputs=[2, 60]), operation(2, inputs=[2, 60], sources=[0, 0])]
    other = operation(3, outputs=[99])
    found = difference([*mine, operation(3)], [*theirs, other])
    assert found == "step 3, operation aten::op3 (forward), train.py:3"


def test_what_a_batch_brought_is_followed_through_memory() -> None:
    batch = {"op": "DataLoader.__next__", "line": "train.py:9", "phase": "data", "inputs": []}
    mine = [{**batch, "outputs": [7, 8]}, operation(2, inputs=[70], sources=[0])]
    theirs = [{**batch, "outputs": [6, 8]}, operation(2, inputs=[60], sources=[0], outputs=[5])]
    found = difference(mine, theirs)
    assert found == "step 3, operation DataLoader.__next__, train.py:9: the batch differs"


def test_other_operations_are_a_difference_with_both_lines() -> None:
    mine = [operation(1), operation(3)]
    theirs = [operation(1), operation(2), operation(3)]
    assert difference(mine, theirs) == (
        "step 3, operation aten::op2 (forward), train.py:2: "
        "one ran aten::op3 at train.py:3, the other aten::op2 at train.py:2"
    )


def test_a_constant_that_differs_is_shown() -> None:
    mine, theirs = [operation(1, constants="0.1")], [operation(1, constants="0.2", outputs=[9])]
    assert difference(mine, theirs) == (
        "step 3, operation aten::op1 (forward), train.py:1: a constant differs: (0.1) and (0.2)"
    )


def test_a_file_that_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("{}\n")
    with pytest.raises(InvalidInputError) as caught:
        read_recordings(path)
    assert str(caught.value).startswith(f"{path}: this is no recording of operations\n  found: ")


# The command

RACE = """\
import sys

import torch
from torch import nn

torch.use_deterministic_algorithms(False)
model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
optimiser = torch.optim.SGD(model.parameters(), 1e-2)
picked = torch.randint(0, 8, (200_000,))
weights = torch.randn(200_000, 32)
for step in range(1, 6):
    hidden = model[1](model[0](torch.randn(8, 16)))
    loss = model[2](hidden).pow(2).mean()
    if step == 3:
        loss = loss + (hidden[picked] * weights).sum()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
torch.save(model.state_dict(), sys.argv[1] + "/model.pt")
"""


@pytest.mark.slow
@pytest.mark.network
def test_a_race_is_explained_through_the_sandbox(tiny: Tiny, store: Store, tmp_path: Path) -> None:
    recipe = RECIPE.partition("[data.numbers]")[0] + (
        '[hardware]\nthreads = 2\n\n[stages.train]\nrun = ["python", "train.py", "{out}"]\n'
    )
    tiny.write("recipe.toml", recipe.replace("packages = []", 'packages = ["torch", "numpy"]'))
    tiny.write("train.py", RACE)
    tiny.build()
    objects = store.root / "objects"
    ran = tiny.run("verify", "--explain", "--json")
    assert ran.code == 7, ran.err
    stage = ran.json["recipes"]["tiny"]["stages"]["train"]
    found = stage["explanation"]
    assert (found["step"], found["operation"]) == (3, "aten::index_put")
    assert (found["line"], found["phase"]) == ("train.py:15", "backward")
    assert (found["cause"], found["confirmed"]) == ("the difference vanishes with one thread", True)
    assert stage["first_difference"]["operation"] == "aten::index_put"
    assert "tiny:train: run 3 up to step 3, with one thread" in ran.err
    built = sorted(each.name for each in objects.iterdir() if "-tiny-" in each.name)
    kept = str(tmp_path / "step.jsonl")
    assert tiny.run("verify", "--explain", "--step", "3", "--save", kept).code == 0
    ran = tiny.run("verify", "--explain", "--against", kept)
    assert "step 3, operation aten::index_put (backward), train.py:15   likely: " in ran.out
    again = tiny.run("verify", "--explain")
    assert "built in" not in again.err  # two builds on record differ
    assert "confirmed: the difference vanishes with one thread" in again.out
    assert built == sorted(each.name for each in objects.iterdir() if "-tiny-" in each.name)


UNFILLED = """\
import sys, time

import numpy as np
import torch
from torch import nn

model = nn.Linear(16, 1)
optimiser = torch.optim.SGD(model.parameters(), 1e-2)
for step in range(1, 6):
    values = torch.randn(8, 16)
    if step == 3:
        times = np.full(16_384, time.time() % 1, np.float32)
        del times
        noise = torch.empty(16_000)
        values = values + noise[64:80]
    optimiser.zero_grad()
    model(values).pow(2).mean().backward()
    optimiser.step()
torch.save(model.state_dict(), sys.argv[1] + "/model.pt")
"""


@pytest.mark.slow
@pytest.mark.network
def test_memory_that_nothing_filled_is_confirmed_through_the_sandbox(tiny: Tiny) -> None:
    """It holds the time at which a freed array was made, so it differs in every run."""
    recipe = RECIPE.partition("[data.numbers]")[0] + (
        '[stages.train]\nrun = ["python", "train.py", "{out}"]\n'
    )
    tiny.write("recipe.toml", recipe.replace("packages = []", 'packages = ["torch", "numpy"]'))
    tiny.write("train.py", UNFILLED)
    tiny.build()
    ran = tiny.run("verify", "--explain")
    assert ran.code == 7, ran.err
    assert (
        "\n      step 3, operation aten::add (forward), train.py:15: it reads memory that nothing"
        " has filled, allocated at train.py:14   confirmed: the difference vanishes when new memory"
        " is filled\n"
    ) in ran.out


def test_options_of_explain_that_do_not_fit_are_refused(tiny: Tiny) -> None:
    ran = tiny.run("verify", "--step", "3")
    assert (ran.code, ran.err) == (2, "error: modelbuild verify: --step goes with --explain\n")
    ran = tiny.run("verify", "--explain", "--save", "file")
    assert (ran.code, ran.err) == (
        2,
        "error: modelbuild verify --explain: the step is that of --against FILE, or --step K for"
        " --save FILE\nmodelbuild verify --help explains it.\n",
    )


def test_a_stage_that_trains_nothing_has_nothing_to_explain(tiny: Tiny) -> None:
    tiny.write("train.py", TRAIN.replace("random.random()", "time.time()"))
    tiny.replace("train.py", "import json, random, sys", "import json, sys, time")
    tiny.build()
    ran = tiny.run("verify", "--explain")
    assert ran.code == 7
    assert "\n      not explained: no steps were recorded in either build\n" in ran.out
