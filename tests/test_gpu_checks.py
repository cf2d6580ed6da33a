"""`benchmarks/gpu_checks.py`: that it runs, on a CPU; and what it finds, where there is a GPU.

There, the Python that has torch is the one that runs the tests, or the one that GPU_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_bootstrap import cpu_wheel_of_torch, make_stage

from modelbuild.environment.indexes import uv_variables

ROOT = Path(__file__).parents[1]
PYTHON = os.environ.get("GPU_PYTHON", sys.executable)
sys.path.insert(0, str(ROOT / "benchmarks"))

from gpu_checks import (  # noqa: E402
    MODELS,
    Check,
    NotRunError,
    Runner,
    check_finder,
    check_model,
)

KNOWN = {"identical", "different", "met", "missed", "found", "not found", "not run"}


@pytest.fixture
def with_torch(tmp_path: Path) -> Path:
    """A Python with torch and without modelbuild."""
    wheel = cpu_wheel_of_torch()
    if wheel is None:
        pytest.skip("no folder in pip's find-links holds a CPU build of torch")
    made = make_stage(tmp_path / "root")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(made.python)]
    subprocess.run([*uv, str(wheel), "numpy"], check=True, env=dict(os.environ) | uv_variables())
    return made.python


@pytest.mark.slow
@pytest.mark.network
def test_the_script_runs_on_a_cpu_with_nothing_installed(with_torch: Path, tmp_path: Path) -> None:
    script = str(ROOT / "benchmarks" / "gpu_checks.py")
    small = ["--device", "cpu", "--size", "tiny", "--steps", "8", "--models", "cnn"]
    done = subprocess.run(
        [with_torch, "-I", script, *small],
        env={"OUT": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    document = json.loads((tmp_path / "gpu_checks.json").read_text())
    results = {check["name"]: check["result"] for check in document["checks"]}
    assert results["cnn: bits"] == "identical", done.stdout
    found = [result for name, result in results.items() if name.startswith("first difference")]
    assert found == ["found"] * 3, done.stdout
    assert set(results.values()) <= KNOWN
    assert done.returncode == int(any(Check(**each).failed for each in document["checks"]))


def test_what_there_is_no_time_for_is_listed_and_fails_nothing(tmp_path: Path) -> None:
    runner = Runner(python=PYTHON, device="cpu", size="tiny", steps=8, folder=tmp_path)
    runner.deadline = time.monotonic() - 1
    checks = check_model(runner, "cnn") + check_finder(runner)
    assert {check.result for check in checks} == {"not run"}
    assert {check.detail for check in checks} == {"there was no time left"}
    assert not any(check.failed for check in checks)


@pytest.fixture
def gpu(tmp_path: Path) -> Runner:
    runner = Runner(python=PYTHON, device="cuda", size="full", steps=40, folder=tmp_path)
    try:
        found = runner.plain("about")
    except NotRunError as error:
        pytest.skip(f"{PYTHON} has no torch that works ({error}): name one in GPU_PYTHON")
    if not found["gpu"]:
        pytest.skip(f"torch {found['torch']} finds no GPU here")
    return runner


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_training_on_a_gpu_gives_the_same_bits_at_a_cost_within_the_limits(
    gpu: Runner, name: str
) -> None:
    checks = check_model(gpu, name)
    assert [check for check in checks if check.result not in ("identical", "met")] == []


@pytest.mark.gpu
@pytest.mark.slow
def test_the_first_difference_of_two_trainings_on_a_gpu_is_found(gpu: Runner) -> None:
    checks = check_finder(gpu)
    assert [check for check in checks if check.result != "found"] == []
