"""Where two trainings went apart: a fault of each sort in each kind of model, found by its line."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from test_bootstrap import RUNTIME, Stage, torch_stage  # noqa: F401

from modelbuild.errors import InvalidInputError
from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import stage_variables
from modelbuild.verify.operations import (
    FirstOperation,
    first_difference,
    parse_recordings,
    read_recordings,
)

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

    def run(self, kind: str, fault: str, side: int, explain: dict[str, object]) -> Path:
        """The folder of the trace."""
        self.runs += 1
        root = self.folder / str(self.runs)
        (root / "trace").mkdir(parents=True)
        (root / "runtime").symlink_to(RUNTIME)
        (root / "src").symlink_to(FAULTS_FOLDER)
        (root / "trace/request.json").write_text(json.dumps({"every": 1, "explain": explain}))
        job = {"root": str(root), "arguments": [kind, fault, str(side)]}
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        assert self.server.stdout.readline() == "0\n"
        return root / "trace"

    def find(self, kind: str, fault: str) -> FirstOperation | None:
        sides = [self.run(kind, fault, side, {"step": STEP, "knob": None}) for side in (0, 1)]
        recordings = [read_recordings(trace / "operations-0.jsonl")[0] for trace in sides]
        return first_difference(*recordings)


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
def test_two_runs_of_a_training_without_a_fault_agree(trainings: Trainings) -> None:
    for kind in KINDS:
        assert trainings.find(kind, "none") is None


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
