"""What modelbuild promises of CUDA, checked on one GPU in under eight minutes, with no network.

    python benchmarks/gpu_checks.py [--python PYTHON] [--json FILE]
    python benchmarks/gpu_checks.py --device cpu --size tiny      # only see that it runs

Needs this checkout and a Python that has torch (`--python`; the default is the one it runs in).
modelbuild need not be installed: every training is a process with the variables and the bootstrap
of a stage, less the sandbox.

1. Each of four trainings (`gpu_models.py`) runs twice in fresh processes, once with its steps
   recorded: the same bits?
2. Each runs as people start it, with nothing set: what do the settings cost? At most 5 %.
3. What does recording the steps cost? At most 2 %.
4. With a fault in one step, do the recordings name that step and what went first?

Exit code 1 if anything differs or a limit is missed; what there was no time for is listed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("cnn", "transformer", "lstm", "compiled")
WENT_FIRST = {"batch": "data order", "random": "random numbers", "gradients": "arithmetic"}
MOST_SETTINGS, MOST_RECORDING = 1.05, 1.02
SECONDS = 7.5 * 60
"""After which nothing is begun any more; the last one may take a while."""
LONGEST_RUN = 150
ADDR_NO_RANDOMIZE = 0x0040000


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    result: str
    """`identical`, `different`, `met`, `missed`, `found`, `not found` or `not run`."""
    detail: str = ""

    @property
    def failed(self) -> bool:
        return self.result in ("different", "missed", "not found")


@dataclass(kw_only=True)
class Runner:
    """Starts trainings, each in a fresh process with a fresh folder."""

    python: str
    device: str
    size: str
    steps: int
    folder: Path
    deadline: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    count: int = 0

    def plain(self, name: str) -> dict:
        """As people start it: their own variables, nothing of ours."""
        return self._run(name, dict(os.environ), [])

    def pinned(self, name: str, *arguments: str, traced: bool = False) -> dict:
        """As a stage: the result also has `trace`, the folder of the recording."""
        self.count += 1
        place = self.folder / str(self.count)
        (place / "site").mkdir(parents=True)
        (place / "tmp").mkdir()
        (place / "runtime").symlink_to(ROOT / "modelbuild" / "runtime" / "v1")
        if traced:
            (place / "trace").mkdir()
            (place / "trace" / "request.json").write_text('{"every": 1}\n')
        result = self._run(name, stage_environment(self.device, place, self.python), arguments)
        return {**result, "trace": str(place / "trace")}

    def _run(self, name: str, variables: Mapping[str, str], arguments: Sequence[str]) -> dict:
        if time.monotonic() > self.deadline:
            raise NotRunError("there was no time left")
        script = str(ROOT / "benchmarks" / "gpu_models.py")
        options = ["--device", self.device, "--size", self.size, "--steps", str(self.steps)]
        try:
            done = subprocess.run(
                [self.python, script, name, *options, *arguments],
                env=variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=LONGEST_RUN,
                preexec_fn=_fixed_addresses,
            )
        except subprocess.TimeoutExpired:
            raise NotRunError(f"took more than {LONGEST_RUN} s") from None
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise NotRunError(said[-1][:200])
        return json.loads(done.stdout.splitlines()[-1])


class NotRunError(Exception):
    """A training did not come to its end; says why."""


def _fixed_addresses() -> None:
    import ctypes

    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)


def stage_environment(device: str, place: Path, python: str) -> dict[str, str]:
    """The variables of a stage in `place`, where its /build and its /tmp are."""
    variables_module, recipe = _spec()
    hardware = recipe.Hardware(
        device=recipe.Device(device), threads=4, gpus=1 if device == "cuda" else 0
    )
    stage = variables_module.stage_variables(hardware, recipe.Determinism(seed=1))
    variables = {name: value.replace("/tmp", str(place / "tmp")) for name, value in stage.items()}
    (place / "site" / "sitecustomize.py").write_text(variables_module.BOOTSTRAP_LINE + "\n")
    variables |= {
        "MODELBUILD_ROOT": str(place),
        "PATH": f"{Path(python).parent}:/usr/local/cuda/bin:/usr/bin:/bin",
        "PYTHONPATH": str(place / "site"),
    }
    # Where images for GPUs say that the driver's libraries are.
    kept = ("LD_LIBRARY_PATH", "CUDA_HOME", "TRITON_LIBCUDA_PATH")
    return variables | {name: os.environ[name] for name in kept if name in os.environ}


def _spec() -> tuple:
    """Of the checkout, with nothing installed; on Python 3.10 too, which many images have."""
    import enum

    class OlderStrEnum(str, enum.Enum):  # noqa: UP042
        pass

    if not hasattr(enum, "StrEnum"):
        enum.StrEnum = OlderStrEnum
    sys.path.insert(0, str(ROOT))
    import modelbuild.spec.recipe
    import modelbuild.spec.variables

    return modelbuild.spec.variables, modelbuild.spec.recipe


def check_model(runner: Runner, name: str) -> list[Check]:
    """Steps 1 to 3 of this script for one training."""
    bits, settings, recording = (
        f"{name}: {what}" for what in ("bits", "cost of the settings", "cost of recording")
    )
    try:
        first, second = runner.pinned(name, traced=True), runner.pinned(name)
    except NotRunError as error:
        return [Check(name=each, result="not run", detail=str(error)) for each in (bits, settings)]
    same = first["digest"] == second["digest"]
    found = [
        Check(
            name=bits,
            result="identical" if same else "different",
            detail=f"{first['digest']}, loss {first['loss']:.4f}",
        )
    ]
    try:
        plain, again = runner.plain(name), runner.pinned(name)
        pinned = min(second["step"], again["step"])
        found.append(_cost(settings, pinned, plain["step"], MOST_SETTINGS))
        if list(Path(first["trace"]).glob("steps-*.bin")):
            found.append(_cost(recording, first["step"], pinned, MOST_RECORDING))
        else:
            found.append(Check(name=recording, result="not run", detail="nothing was recorded"))
    except NotRunError as error:
        found.append(Check(name=settings, result="not run", detail=str(error)))
    return found


def _cost(name: str, seconds: float, before: float, limit: float) -> Check:
    ratio = seconds / before
    return Check(
        name=name,
        result="met" if ratio <= limit else "missed",
        detail=f"{ratio:.3f} times {1000 * before:.2f} ms a step; at most {limit}",
    )


def check_finder(runner: Runner, name: str = "transformer") -> list[Check]:
    """Step 4: one training with and without each fault, in the middle."""
    at = runner.steps // 2
    found = []
    try:
        good = runner.pinned(name, traced=True)
    except NotRunError as error:
        return [Check(name="first difference", result="not run", detail=str(error))]
    for fault, went_first in WENT_FIRST.items():
        title = f"first difference: {fault} in step {at}"
        try:
            bad = runner.pinned(name, "--fault", fault, "--at", str(at), traced=True)
            found.append(_found(title, good, bad, at, went_first))
        except NotRunError as error:
            found.append(Check(name=title, result="not run", detail=str(error)))
    return found


def _found(title: str, good: dict, bad: dict, at: int, went_first: str) -> Check:
    try:
        from modelbuild.verify.steps import compare_steps
    except ImportError as error:
        raise NotRunError(f"the recordings can't be read here: {error}") from None
    difference = compare_steps(Path(good["trace"]), Path(bad["trace"])).difference
    if difference is None:
        return Check(name=title, result="not found")
    right = (difference.step, difference.went_first) == (at, went_first)
    return Check(name=title, result="found" if right else "not found", detail=str(difference))


def check_all(runner: Runner, models: Sequence[str] = MODELS) -> list[Check]:
    """The longest last: `torch.compile`."""
    checks = [check for name in models if name != "compiled" for check in check_model(runner, name)]
    checks += check_finder(runner)
    return checks + (check_model(runner, "compiled") if "compiled" in models else [])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="one that has torch")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--size", choices=["full", "tiny"], default="full")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    out = os.environ.get("OUT")
    default = Path(out, "gpu_checks.json") if out else None
    parser.add_argument("--json", type=Path, default=default, help="default: in $OUT, if set")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-checks-") as folder:
        runner = Runner(
            python=options.python,
            device=options.device,
            size=options.size,
            steps=options.steps,
            folder=Path(folder),
        )
        try:
            machine = runner.plain("about")
        except NotRunError as error:
            parser.error(f"{options.python} has no torch that works: {error}")
        if options.device == "cuda" and not machine["gpu"]:
            parser.error(f"torch {machine['torch']} of {options.python} finds no GPU")
        print(", ".join(f"{name} {value}" for name, value in machine.items() if value), flush=True)
        checks = check_all(runner, options.models)
    seconds = time.monotonic() - began
    _report(checks, seconds)
    if options.json:
        document = {"machine": machine, "seconds": seconds, "checks": [vars(c) for c in checks]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return int(any(check.failed for check in checks))


def _report(checks: Sequence[Check], seconds: float) -> None:
    print("\n| check | result | |\n|---|---|---|")
    for check in checks:
        print(f"| {check.name} | {check.result} | {check.detail} |")
    print(f"\nin {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
