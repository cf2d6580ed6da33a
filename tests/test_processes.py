"""Stages of several processes: what starts them, that they repeat, and how they fail."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from conftest import Tiny, share_interpreter

from modelbuild.errors import InvalidInputError
from modelbuild.sandbox.ranks import rank_failure
from modelbuild.sandbox.unconfined import Unconfined
from modelbuild.spec.processes import launched
from modelbuild.spec.recipe import Recipe
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.store.store import remove_tree

TORCHRUN = (
    *("python", "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2"),
    *("--max-restarts", "0", "--master-addr", "127.0.0.1", "--master-port", "29500"),
)


def recipe_of(stage: str, hardware: str = "processes = 2") -> Recipe:
    text = (
        'schema = 1\n[model]\nname = "ddp"\n[environment]\npython = "3.11"\npackages = []\n'
        f"[hardware]\n{hardware}\n[stages.train]\n{stage}\n"
    )
    return parse_recipe(text.encode(), PurePosixPath("recipe.toml"))


# The command


@pytest.mark.parametrize(
    ("run", "started"),
    [
        (["python", "train.py", "--lr", "1"], [*TORCHRUN, "train.py", "--lr", "1"]),
        (["python", "-m", "train", "-u"], [*TORCHRUN, "-m", "train", "-u"]),
        (["python", "-u", "train.py"], [*TORCHRUN, "train.py"]),
    ],
)
def test_several_processes_are_started_by_torchrun(run: list[str], started: list[str]) -> None:
    assert launched(run, 2) == tuple(started)
    assert launched(run, 1) == tuple(run)


@pytest.mark.parametrize(
    ("run", "found"),
    [
        ('["torchrun", "train.py"]', "a command that is not Python: torchrun"),
        ('["sh", "-c", "python train.py"]', "a command that is not Python: sh"),
        ('["python", "-c", "print()"]', "Python without a script: python -c print()"),
        ('["python"]', "Python without a script: python"),
        (
            '["python", "-m", "torch.distributed.run", "train.py"]',
            "a command that starts processes itself: python -m torch.distributed.run",
        ),
    ],
)
def test_a_command_that_torchrun_cannot_start_is_refused(run: str, found: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        recipe_of(f"run = {run}")
    assert str(caught.value) == (
        "recipe.toml:10: 'run' in [stages.train] can't be started as 2 processes\n"
        '  wanted: ["python", "train.py", ...] or ["python", "-m", "train", ...]\n'
        f"  found:  {found}\n"
        "modelbuild starts the processes, by torchrun. For a command that is one process, or "
        "starts them itself: processes = 1 in the stage."
    )
    assert recipe_of(f"run = {run}\nprocesses = 1").stages["train"].processes == 1


def test_a_stage_has_the_processes_of_the_hardware_or_its_own() -> None:
    run = 'run = ["python", "train.py"]'
    assert recipe_of(run).stages["train"].processes == 2
    assert recipe_of(f"{run}\nprocesses = 3", "").stages["train"].processes == 3
    assert recipe_of(run, "").stages["train"].processes == 1


def test_without_a_network_of_its_own_a_stage_meets_at_a_port_that_is_free() -> None:
    assert Unconfined().free_port() != Unconfined().free_port()


# What a failed log says

NOISE = """\
W1123 09:43:25.583000 13867 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process
E1123 09:43:25.600000 13867 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitc
Traceback (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  rank      : {other} (local_rank: {other})
  exitcode  : -15 (pid: 13933)  (SIGTERM)
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2026-11-23_09:43:25
  rank      : {rank} (local_rank: {rank})
  exitcode  : {code} (pid: 13934) {signal}
  error_file: <N/A>
============================================================
"""
OWN = "[rank1]: Traceback (most recent call last):\n[rank1]: ValueError: no data\n"
OTHER = "[rank0]: Traceback (most recent call last):\n[rank0]: RuntimeError: closed by peer\n"


@pytest.mark.parametrize("named", [0, 1])
def test_the_first_traceback_is_the_failure_whichever_rank_torchrun_names(named: int) -> None:
    noise = NOISE.format(rank=named, other=1 - named, code=1, signal="")
    failure = rank_failure(f"epoch 1\n{OWN}{OTHER}{noise}")
    assert failure is not None
    assert (failure.rank, failure.exit_code, failure.printed) == (1, 1, OWN.rstrip("\n"))


def test_a_rank_that_was_killed_is_named_and_what_all_printed_is_shown() -> None:
    noise = NOISE.format(rank=1, other=0, code=-9, signal="(SIGKILL)")
    failure = rank_failure(f"epoch 1\n{OTHER}{noise}")
    assert failure is not None
    assert (failure.rank, failure.exit_code) == (1, -9)
    assert failure.printed == f"epoch 1\n{OTHER}".rstrip("\n")


def test_a_log_without_torchruns_report_is_left_alone() -> None:
    assert rank_failure(OWN) is None
    assert rank_failure("E1123 09:43 1 torch/distributed/elastic/multiprocessing/api.py:1]") is None


# Real ones

RECIPE = """\
schema = 1

[model]
name = "ddp"

[environment]
python = "3.11"
packages = ["torch==2.13.0", "numpy"]

[code]
include = ["*.py"]

[params]
fault = "none"

[hardware]
threads = 1
processes = 2

[determinism]
seed = 7

[stages.train]
run = ["python", "train.py", "{params.fault}", "{out}"]
metrics = "metrics.json"

[stages.evaluate]
run = ["python", "evaluate.py", "{stages.train}", "{out}"]
processes = 1
"""

TRAIN = """\
import json, os, random, sys, uuid
import torch
import torch.distributed as distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

fault, out = sys.argv[1:]
if fault == "before" and os.environ["RANK"] == "1":
    raise ValueError("this rank has no data")
distributed.init_process_group("gloo")
rank = distributed.get_rank()
if fault == "after" and rank == 1:
    raise ValueError("this rank has no data")
if fault == "killed" and rank == 1:
    os.kill(os.getpid(), 9)

if fault.startswith("undone"):
    torch.backends.cudnn.benchmark = True
    if fault == "undone in one" and rank == 1:
        torch.use_deterministic_algorithms(False)

drawn = (random.random(), float(torch.rand(())), uuid.uuid4().hex)
everyone = [None, None]
distributed.all_gather_object(everyone, drawn)
data = TensorDataset(torch.randn(64, 8), torch.randint(4, (64,)))
sampler = DistributedSampler(data)
loader = DataLoader(data, batch_size=8, sampler=sampler, num_workers=1)
net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 4))
net = DistributedDataParallel(net)
optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
for epoch in range(2):
    sampler.set_epoch(epoch)
    for inputs, labels in loader:
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(inputs), labels)
        loss.backward()
        optimiser.step()
if rank == 0:
    torch.save(net.module.state_dict(), out + "/model.pt")
    seen = {"threads": torch.get_num_threads(), "processors": len(os.sched_getaffinity(0))}
    seen |= {"environment": sorted(os.environ), "drawn": everyone, "argv": sys.argv[1]}
    json.dump(seen, open(out + "/seen.json", "w"))
    json.dump({"loss": float(loss)}, open(out + "/metrics.json", "w"))
distributed.destroy_process_group()
"""

EVALUATE = """\
import os, shutil, sys
assert "RANK" not in os.environ
shutil.copy(sys.argv[1] + "/seen.json", sys.argv[2])
"""


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory, interpreter_object: Path) -> Iterator[Tiny]:
    root = tmp_path_factory.mktemp("ddp")
    share_interpreter(root / "store", interpreter_object)
    workspace = Tiny(root / "workspace", {"MODELBUILD_STORE": str(root / "store")})
    for name, text in (("recipe.toml", RECIPE), ("train.py", TRAIN), ("evaluate.py", EVALUATE)):
        workspace.write(name, textwrap.dedent(text))
    yield workspace
    remove_tree(root / "store")


@pytest.mark.slow
@pytest.mark.network
def test_a_training_of_two_processes_comes_out_identical(ddp: Tiny) -> None:
    stages = ddp.build()
    ran = ddp.run("verify", "--rebuild", "--json")
    assert ran.code == 0, ran.err
    verified = ran.json["recipes"]["ddp"]["stages"]
    assert [stage["rebuild"] for stage in verified.values()] == ["identical", "identical"]

    log = ddp.root.parent / "store" / stages["train"]["log"]
    recorded = sorted(path.name for path in log.with_suffix(".trace").glob("steps-*"))
    assert recorded == ["steps-0.r0.bin", "steps-0.r1.bin"]

    seen = json.loads(Path(stages["evaluate"]["path"], "seen.json").read_text())
    assert (seen["threads"], seen["processors"]) == (1, 1)
    drawn, other = seen["drawn"]
    assert drawn[:2] == other[:2], "every rank starts with the recipe's seed"
    assert drawn[2] != other[2], "what is to be unique differs between ranks"


@pytest.mark.slow
@pytest.mark.network
def test_settings_that_a_rank_undid_are_noted_with_the_rank_where_only_one_did(ddp: Tiny) -> None:
    lines = TRAIN.splitlines()
    by_all, by_one = (
        next(number for number, line in enumerate(lines, 1) if each in line)
        for each in ("cudnn.benchmark", "use_deterministic_algorithms")
    )
    ran = ddp.run("build", "--no-link", "--set", 'params.fault="undone in one"')
    assert ran.code == 0, ran.err
    noted = [line.partition("note: ")[2] for line in ran.err.splitlines() if "note: " in line]
    assert noted == [
        f"the script turned on cudnn.benchmark (train.py:{by_all})",
        f"the script turned off deterministic algorithms (train.py:{by_one}), in rank 1 of 2",
    ]


@pytest.mark.slow
@pytest.mark.network
def test_a_training_of_two_processes_builds_without_isolation(ddp: Tiny) -> None:
    setting = 'params.fault="no isolation"'
    built = ddp.build("--isolation", "none", "--set", setting, "--no-link")
    assert built["train"]["isolation"] == "none"


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(
    ("fault", "exit_code", "last"),
    [
        ("before", "1", "ValueError: this rank has no data"),
        ("after", "1", "[rank1]: ValueError: this rank has no data"),
        ("killed", "signal 9", None),
    ],
)
def test_a_rank_that_dies_ends_the_stage_with_its_message(
    ddp: Tiny, fault: str, exit_code: str, last: str | None
) -> None:
    ran = ddp.run("build", "--set", f'params.fault="{fault}"')
    assert ran.code == 6
    lines = ran.err[ran.err.index("error: ") :].splitlines()
    assert lines[0] == "error: recipe.toml:24: stage 'train' failed"
    assert lines[1] == "  rank:      1 of 2, from 0"
    assert lines[2] == f"  exit code: {exit_code}"
    assert last is None or lines[-2].strip() == last
    assert "ChildFailedError" not in ran.err
    assert not [each for each in _commands() if f"train.py\0{fault}\0" in each]


def _commands() -> list[str]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found.append(Path("/proc", name, "cmdline").read_text())
            except OSError:
                continue
    return found
