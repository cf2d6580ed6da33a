"""Probes: evidence beside the numeric class, and what is said where they do not fit it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from conftest import Tiny

from modelbuild.build.probed_again import probe_again
from modelbuild.build.probes import Probed, complaints
from modelbuild.sandbox.shipped_runtime import current_runtime, runtime_folder
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import parse_lock, render_lock
from modelbuild.spec.probes import ProbeRun, Probes, probe_run, short_probes
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.store.store import Store

PROBING = "probing the numerics of this machine with this environment"


def lock_of(tiny: Tiny) -> Lock:
    return parse_lock((tiny.root / "model.lock").read_bytes())


def only(tiny: Tiny) -> tuple[str, str, Probes]:
    """Class, name and content of the one line of probes in the lock."""
    [(numeric_class, runs)] = lock_of(tiny).probes.items()
    [(name, probes)] = runs.items()
    return numeric_class, name, probes


def alter(tiny: Tiny, change: Callable[[Probes], Probes]) -> None:
    numeric_class, name, probes = only(tiny)
    lock = replace(lock_of(tiny), probes={numeric_class: {name: change(probes)}})
    (tiny.root / "model.lock").write_bytes(render_lock(lock))


def other_libm(probes: Probes) -> Probes:
    return replace(probes, digest="0" * 12, operations={**probes.operations, "libm": "0000"})


def forget_outputs(store: Store) -> None:
    shutil.rmtree(store.root / "realisations")


def evidence(store: Store) -> Path:
    [file] = (store.root / "probes").rglob("*.json")
    return file


def test_the_first_claim_brings_the_probes_of_its_class(tiny: Tiny, store: Store) -> None:
    assert PROBING in tiny.run("build").err
    lock = lock_of(tiny)
    numeric_class, name, probes = only(tiny)
    assert [numeric_class] == list(lock.classes)
    assert name == f"{lock.recipes['tiny'].environment}-x86-64-v3-1"
    assert probes.threads == {"processors": 1}
    document = json.loads(evidence(store).read_bytes())
    assert document["failed"] == {}
    assert {"libc.so.6", "libm.so.6"} <= set(document["libraries"])
    assert probes == short_probes(probes.settings, document["probes"], probes.threads)
    assert set(probes.operations) == {"libm"}


def test_probes_run_once_on_a_machine(tiny: Tiny, store: Store) -> None:
    tiny.build()
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    tiny.replace("recipe.toml", "seed = 7", "seed = 8")
    assert PROBING not in tiny.run("build").err
    tiny.replace("recipe.toml", "seed = 8", "seed = 8\n\n[hardware]\nthreads = 2")
    assert PROBING in tiny.run("build").err
    numeric_class, *_ = lock_of(tiny).classes
    names = [name.rpartition("-")[2] for name in lock_of(tiny).probes[numeric_class]]
    assert names == ["1", "2"]


def test_without_isolation_nothing_is_probed(tiny: Tiny, store: Store) -> None:
    assert PROBING not in tiny.run("build", "--isolation", "none").err
    assert not (store.root / "probes").exists()


def test_other_probes_on_the_class_of_the_lock_are_said_before_the_build(
    tiny: Tiny, store: Store
) -> None:
    tiny.build()
    alter(tiny, other_libm)
    forget_outputs(store)
    ran = tiny.run("build")
    assert ran.code == 0
    numeric_class, name, _ = only(tiny)
    assert ran.err.startswith(
        "probing again: libm gave other bits than model.lock says\n"
        "warning: this machine computes other bits than model.lock says of its numeric class"
        f" ({numeric_class})\n"
        "  operations: libm\n"
        "  runs:       3, each in a new process\n"
        f"  settings:   {name}\n"
        f"  evidence:   {evidence(store)}\n"
        "Something that is not in the class changes its results: microcode, an emulator, a"
        " hypervisor,\n"
        "a library of the host, faulty hardware. Trainings may come out different here."
        " Please report it.\n"
        "To see whether they do: modelbuild verify --rebuild, here and on another machine of this"
        " class.\n"
        "Only if other machines compute what this one does is model.lock wrong: then delete the"
        " line\n"
        f"'{name}' below [probes.{numeric_class}].\n"
        "[1/2] tiny:train: building\n"
    )
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    assert tiny.run("build").code == 0
    assert only(tiny)[2].operations["libm"] == "0000", "evidence is not overwritten by a new claim"


def spoil(file: Path, digest: str = "f" * 64) -> None:
    """As a run of the probes would have left it in which the C library had a bad moment."""
    document = json.loads(file.read_bytes())
    document["probes"]["libm"] = digest
    file.chmod(0o644)
    file.write_text(json.dumps(document))


def test_a_probe_that_differs_once_is_probed_again_and_is_no_fault(
    tiny: Tiny, store: Store
) -> None:
    tiny.build()
    file = evidence(store)
    true = json.loads(file.read_bytes())["probes"]
    spoil(file)
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 0
    assert ran.err.startswith(
        "probing again: libm gave other bits than model.lock says\n"
        "libm came out differently once in 2 runs of the probes on this machine (an arithmetic"
        " race): what agrees with model.lock is kept\n"
    )
    assert "this machine computes" not in ran.err
    kept = json.loads(file.read_bytes())
    assert kept["probes"] == true
    assert kept["differed"] == {"libm": ["f" * 64, true["libm"]]}
    assert "libm" not in tiny.run("verify", "--rebuild").err, "what agrees is on record"


def test_only_an_operation_that_differs_in_every_run_differs() -> None:
    locked = short_probes("s", {"gelu": "aaaaaa", "gru": "bbbbbb", "svd": "cccccc"}, {})
    runs = [
        {"gelu": "a1a1a1", "gru": "bbbbbb", "svd": "c1c1c1"},
        {"gelu": "a2a2a2", "gru": "b2b2b2", "svd": "cccccc"},
        {"gelu": "a3a3a3", "gru": "b3b3b3", "svd": "c3c3c3", "new": "dddddd"},
    ]
    asked = iter(json.dumps({"probes": each, "threads": {}}).encode() for each in runs)
    said: list[str] = []
    run = ProbeRun(name="r", settings="s", variables={})
    document, count = probe_again(next(asked), locked, run, lambda: next(asked), said.append)
    assert count == 3
    kept = json.loads(document)["probes"]
    assert kept == {"gelu": "a3a3a3", "gru": "bbbbbb", "svd": "cccccc"}
    assert short_probes("s", kept, {}).differing(locked) == ("gelu",)
    assert said[0] == "probing again: gelu, svd gave other bits than model.lock says"
    assert said[1].startswith("gru, new, svd came out differently once in 3 runs of the probes")
    assert len(said) == 2


def test_a_library_with_another_number_of_threads_is_named() -> None:
    text = b'schema = 1\nmodel.name = "m"\nenvironment = { python = "3.11", packages = [] }\n'
    text += b'stages.train.run = ["true"]\nhardware.threads = 4\n'
    recipe = parse_recipe(text, PurePosixPath("recipe.toml"))
    probed = Probed(
        run=probe_run(recipe, "0123456789ab", "1 b3:..."),
        numeric_class="ba9876543210",
        here=short_probes("settings", {"libm": "12345"}, {"torch": 4, "openblas": 1}),
        locked=None,
        evidence=Path("evidence.json"),
    )
    assert list(complaints(probed)) == ["with threads = 4, openblas would use 1"]


def test_probes_of_other_settings_say_nothing_and_are_replaced(tiny: Tiny, store: Store) -> None:
    tiny.build()
    before = only(tiny)
    alter(tiny, lambda probes: replace(other_libm(probes), settings="f" * 12))
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    ran = tiny.run("build")
    assert ran.code == 0
    assert "warning" not in ran.err
    assert only(tiny) == before


def test_probes_that_cannot_run_keep_nothing_from_being_built(tiny: Tiny, store: Store) -> None:
    tiny.build()
    file = evidence(store)
    forget_outputs(store)
    file.write_text("{")
    ran = tiny.run("build")
    assert ran.code == 0
    assert ran.err.startswith(f"a damaged record of probes is not used: {file}\n")


def test_probes_of_a_class_that_no_claim_names_go(tiny: Tiny) -> None:
    tiny.build()
    numeric_class, name, probes = only(tiny)
    lock = lock_of(tiny)
    more = {**lock.probes, "0123456789ab": {name: probes}}
    (tiny.root / "model.lock").write_bytes(render_lock(replace(lock, probes=more)))
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    assert tiny.run("lock").code == 0
    assert only(tiny) == (numeric_class, name, probes)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_every_operation_gives_the_same_each_time(tmp_path: Path, threads: str) -> None:
    program = runtime_folder(current_runtime()) / "probes.py"
    found = []
    for place in ("first", "second"):
        (tmp_path / place / "out").mkdir(parents=True)
        environment = {
            "MODELBUILD_ROOT": str(tmp_path / place),
            "OPENBLAS_NUM_THREADS": threads,
            "PATH": os.environ["PATH"],
        }
        subprocess.run([sys.executable, program], env=environment, check=True)
        found.append(json.loads((tmp_path / place / "out" / "probes.json").read_bytes()))
    assert found[0]["probes"] == found[1]["probes"]
    assert {"libm", "numpy.exp", "numpy.matmul"} <= set(found[0]["probes"])
    assert found[0]["failed"] == {}
    assert found[0]["threads"]["openblas"] == int(threads)


def test_other_probes_on_the_class_of_the_lock_fail_verify(tiny: Tiny) -> None:
    tiny.build()
    alter(tiny, other_libm)
    ran = tiny.run("verify", "--rebuild", "--json")
    assert ran.code == 7
    train = ran.json["recipes"]["tiny"]["stages"]["train"]
    assert train["rebuild"] == "identical"
    [problem] = train["problems"]
    assert problem.startswith("this machine computes other bits than model.lock says")
    assert ran.json["recipes"]["tiny"]["stages"]["evaluate"]["problems"] == []
    tiny.replace("recipe.toml", "seed = 7", 'seed = 7\nlevel = "recorded"')
    assert tiny.run("lock").code == 0
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 0
    assert "warning: this machine computes other bits" in ran.err
