"""Claims and verification: what holds, what does not, and what can't be told here."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from conftest import Tiny, how

from modelbuild.spec.lock_file import parse_lock, render_lock
from modelbuild.spec.numeric_class import NumericClass
from modelbuild.store.store import Store

FORGETFUL = """\
import json, sys, time

out = sys.argv[3]
json.dump({"weight": time.time_ns()}, open(out + "/model.json", "w"))
json.dump({"loss": LOSS}, open(out + "/metrics.json", "w"))
"""


def verdict(tiny: Tiny, *arguments: str) -> dict:
    return tiny.run("verify", "--json", *arguments).json["recipes"]["tiny"]


def forget(store: Store) -> None:
    """As on another machine: nothing is built yet."""
    shutil.rmtree(store.root / "realisations")


def drifting(tiny: Tiny, level: str, *, loss: str = "time.time() % 1") -> None:
    """A workspace whose training depends on the time."""
    tiny.write("train.py", FORGETFUL.replace("LOSS", loss))
    tiny.replace("recipe.toml", "seed = 7", f'seed = 7\nlevel = "{level}"')


def test_a_build_verifies(tiny: Tiny) -> None:
    tiny.build()
    ran = tiny.run("verify")
    assert ran.code == 0, ran.err
    assert ran.out == (
        "tiny: lock current\n"
        "  train     store intact  claim holds\n"
        "  evaluate  store intact  claim holds\n"
    )


def test_a_rebuild_is_identical(tiny: Tiny) -> None:
    tiny.build()
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 0, ran.err
    assert ran.out == (
        "tiny: lock current\n"
        "  train     store intact  claim holds  rebuild identical to the output in the store\n"
        "  evaluate  store intact  claim holds  rebuild identical to the output in the store\n"
    )


def test_on_a_machine_that_has_built_nothing_the_rebuild_is_held_against_the_claim(
    tiny: Tiny, store: Store
) -> None:
    tiny.build()
    forget(store)
    stages = verdict(tiny)["stages"]
    assert [stages[name]["store"] for name in stages] == ["absent", "absent"]
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 0, ran.err
    assert "train     store absent  claim unchecked  rebuild identical to the claim" in ran.out


def forget_output(path: str) -> None:
    for each in (Path(path), *Path(path).rglob("*")):
        if each.is_dir():
            each.chmod(0o755)
    shutil.rmtree(path)


def test_an_output_is_here_although_what_it_was_made_from_is_not(tiny: Tiny) -> None:
    with (tiny.root / "recipe.toml").open("a") as recipe:
        recipe.write(
            "\n[stages.publish]\n"
            'run = ["python", "evaluate.py", "{stages.train}/model.json", "{out}",'
            ' "{stages.evaluate}"]\nmetrics = "metrics.json"\n'
        )
    built = tiny.build()
    for stage in ("train", "evaluate"):
        forget_output(built[stage]["path"])
    ran = tiny.run("verify")
    assert ran.code == 0, ran.err
    assert ran.out == (
        "tiny: lock current\n"
        "  train     store absent  claim unchecked\n"
        "  evaluate  store absent  claim unchecked\n"
        "  publish   store intact  claim holds\n"
    )
    metrics = Path(built["publish"]["path"]) / "metrics.json"
    metrics.chmod(0o644)
    metrics.write_text("{}")
    ran = tiny.run("verify")
    assert ran.code == 5
    assert "publish   store corrupt" in ran.out


def test_it_is_found_by_the_records_of_builds_where_nothing_is_claimed(tiny: Tiny) -> None:
    built = tiny.build()
    lock = parse_lock((tiny.root / "model.lock").read_bytes())
    recipe = lock.recipes["tiny"]
    stages = {name: replace(stage, claims=()) for name, stage in recipe.stages.items()}
    unclaimed = replace(lock, recipes={"tiny": replace(recipe, stages=stages)}, classes={})
    (tiny.root / "model.lock").write_bytes(render_lock(replace(unclaimed, probes={})))
    forget_output(built["train"]["path"])
    stages = verdict(tiny)["stages"]
    assert [stages[name]["store"] for name in stages] == ["absent", "intact"]


def test_an_output_that_was_made_from_another_one_than_was_built_again_is_not_it(
    tiny: Tiny,
) -> None:
    drifting(tiny, "recorded")
    built = tiny.build()
    forget_output(built["train"]["path"])
    stages = verdict(tiny, "--rebuild")["stages"]
    assert [stages[name]["store"] for name in stages] == ["absent", "absent"]


def test_a_training_that_depends_on_the_time_is_different(tiny: Tiny, store: Store) -> None:
    drifting(tiny, "bitwise", loss="1")
    tiny.build()
    ran = tiny.run("verify", "--rebuild", "--json")
    assert ran.code == 7
    train = ran.json["recipes"]["tiny"]["stages"]["train"]
    assert train["rebuild"] == "different"
    assert [file["path"] for file in train["comparison"]["files"]] == ["model.json"]
    outputs = [path for path in (store.root / "objects").iterdir() if "-tiny-train" in path.name]
    assert len(outputs) == 2
    assert "tiny:train is not reproducible" in ran.err
    assert "--explain" not in ran.err, "no step is on record that could be looked at"


def test_a_rebuild_that_breaks_a_claim_whose_output_is_gone_says_how_to_compare(
    tiny: Tiny, store: Store
) -> None:
    drifting(tiny, "bitwise", loss="1")
    tiny.build()
    forget(store)
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 7
    assert (
        "The output that was claimed is not here. To build once more, and see where the two"
        " differ:\nmodelbuild verify --rebuild tiny\n"
    ) in ran.err


def test_another_result_for_a_claim_of_the_same_class_is_not_reproducible(
    tiny: Tiny, store: Store
) -> None:
    drifting(tiny, "bitwise")
    tiny.build()
    before = (tiny.root / "model.lock").read_bytes()
    forget(store)
    ran = tiny.run("build")
    assert ran.code == 7
    assert "error: tiny:train is not reproducible: different on the numeric class" in ran.err
    outputs = [path for path in (store.root / "objects").iterdir() if "-tiny-train" in path.name]
    assert len(outputs) == 2
    assert (tiny.root / "model.lock").read_bytes() == before


def test_metrics_within_tolerance_hold_at_level_functional(tiny: Tiny, store: Store) -> None:
    drifting(tiny, "functional", loss="0.5 + (time.time_ns() % 1000) * 1e-6")
    with (tiny.root / "recipe.toml").open("a") as recipe:
        recipe.write("\n[verify.metrics]\nloss = { abs = 0.002 }\nscore = { rel = 0.5 }\n")
    tiny.replace("evaluate.py", "round(weight, 3)", "1")
    tiny.build()
    stages = verdict(tiny, "--rebuild")["stages"]
    assert stages["train"]["rebuild"] == "within tolerance"
    assert tiny.run("verify", "--rebuild").code == 0


def test_metrics_within_tolerance_do_not_hold_at_level_bitwise(tiny: Tiny) -> None:
    drifting(tiny, "bitwise", loss="1")
    with (tiny.root / "recipe.toml").open("a") as recipe:
        recipe.write("\n[verify.metrics]\nloss = { abs = 0.002 }\n")
    tiny.build()
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 7
    assert "rebuild within tolerance of the output in the store" in ran.out


def test_metrics_out_of_tolerance_are_different_at_level_functional(tiny: Tiny) -> None:
    drifting(tiny, "functional", loss="time.time_ns()")
    with (tiny.root / "recipe.toml").open("a") as recipe:
        recipe.write("\n[verify.metrics]\nloss = { abs = 0.002 }\n")
    tiny.build()
    assert tiny.run("verify", "--rebuild").code == 7


def test_level_recorded_promises_nothing_and_says_different(tiny: Tiny) -> None:
    drifting(tiny, "recorded")
    tiny.build()
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 0, ran.err
    assert "rebuild different from the output in the store" in ran.out


def test_a_claim_of_another_class_is_compared_and_never_overwritten(
    tiny: Tiny, store: Store
) -> None:
    drifting(tiny, "bitwise")
    tiny.build()
    lock = parse_lock((tiny.root / "model.lock").read_bytes())
    ((key, facts),) = lock.classes.items()
    another = NumericClass({**facts, "cpu-model": "another"})
    other = another.key
    recipe = lock.recipes["tiny"]
    stages = {
        name: replace(stage, claims=tuple(replace(c, numeric_class=other) for c in stage.claims))
        for name, stage in recipe.stages.items()
    }
    changed = replace(
        lock, classes={other: another.facts}, recipes={"tiny": replace(recipe, stages=stages)}
    )
    other_lock = render_lock(changed).decode()
    (tiny.root / "model.lock").write_text(other_lock)
    forget(store)
    ran = tiny.run("build")
    assert ran.code == 0, ran.err
    assert f"different from the claim of another class ({other})" in ran.err
    assert (tiny.root / "model.lock").read_text() == other_lock
    assert tiny.run("build", "--claim").code == 0
    assert key in (tiny.root / "model.lock").read_text()
    assert other in (tiny.root / "model.lock").read_text()


def test_locked_without_a_claim_is_out_of_date(tiny: Tiny) -> None:
    tiny.run("lock")
    ran = tiny.run("build", "--locked")
    assert ran.code == 4
    assert ran.err.endswith(
        "error: model.lock has no claim for what was built\n"
        "  stages: tiny:train, tiny:evaluate\n"
        "To add it, build without --locked and commit model.lock.\n"
    )
    ran = tiny.run("verify")
    assert ran.code == 4
    assert "model.lock has no claim for tiny:train" in ran.err


def test_a_stale_lock_is_reported(tiny: Tiny) -> None:
    tiny.build()
    tiny.replace("train.py", "import json", "import json  # changed")
    ran = tiny.run("verify")
    assert ran.code == 4
    assert ran.out == "tiny: lock stale\n"
    assert "tiny: code: train.py" in ran.err
    assert tiny.run("lock", "--check").code == 4


def test_data_that_is_not_here_is_unchecked(tiny: Tiny, tmp_path: Path) -> None:
    tiny.replace("recipe.toml", 'path = "numbers.txt"', 'location = "shelf"\nfile = "numbers.txt"')
    here = {"MODELBUILD_LOCATION_SHELF": str(tiny.root)}
    tiny.build(**here)
    assert tiny.run("verify", **here).out.startswith("tiny: lock current\n")
    ran = tiny.run("verify")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("tiny: lock unchecked (not on this machine: numbers)\n")


def test_altered_data_is_a_mismatch_in_verify_too(tiny: Tiny) -> None:
    tiny.build()
    (tiny.root / "numbers.txt").write_text("3\n")
    assert tiny.run("verify").code == 5


def test_isolation_none_is_said_and_never_claimed(tiny: Tiny) -> None:
    stages = tiny.build("--isolation", "none")
    assert stages["train"]["isolation"] == "none"
    assert "claims" not in (tiny.root / "model.lock").read_text()
    full = tiny.build()
    assert full["train"]["how"] == "built"
    assert full["train"]["isolation"] == "full"
    assert tiny.build("--isolation", "none")["train"]["isolation"] == "full"


def test_a_gpu_that_is_not_here_is_exit_code_8_before_any_work(tiny: Tiny, store: Store) -> None:
    tiny.replace("recipe.toml", "[determinism]", '[hardware]\ndevice = "cuda"\n\n[determinism]')
    ran = tiny.run("build", PATH="/usr/bin:/bin")
    assert ran.code == 8
    assert "recipe.toml:" in ran.err
    assert not (store.root / "logs").exists()


def test_claims_that_were_edited_are_not_believed(tiny: Tiny) -> None:
    tiny.build()
    lock = (tiny.root / "model.lock").read_text()
    line = next(line for line in lock.splitlines() if "score = " in line)
    (tiny.root / "model.lock").write_text(lock.replace(line, line.replace("score = ", "score = 1")))
    for command in (["verify"], ["verify", "--rebuild"], ["build"]):
        ran = tiny.run(*command)
        assert ran.code == 3, ran.err
        assert "model.lock: the claim of tiny:evaluate is not what its output gave" in ran.err
        assert "metric score: 1" in ran.err
    out = tiny.run("verify").out
    assert "train     store intact  claim holds\n" in out
    assert "evaluate  store intact  claim untrue\n" in out


def test_an_early_cutoff_claims_the_new_derivation(tiny: Tiny) -> None:
    tiny.build()
    tiny.replace("train.py", 'print("training', 'print("Training')
    assert how(tiny.build()) == {"train": "built", "evaluate": "valid"}
    assert tiny.run("build", "--locked").code == 0
    assert tiny.run("verify").code == 0


def test_a_tolerance_for_no_metric_is_an_error(tiny: Tiny) -> None:
    with (tiny.root / "recipe.toml").open("a") as recipe:
        recipe.write("\n[verify.metrics]\nacuracy = { abs = 0.002 }\n")
    ran = tiny.run("build")
    assert ran.code == 3
    assert ran.err.endswith(
        "error: recipe.toml:31: no stage has a metric 'acuracy'\n  found: loss, score\n"
    )


def test_an_altered_input_from_the_store_is_not_used(tiny: Tiny) -> None:
    model = Path(tiny.build()["train"]["path"]) / "model.json"
    model.chmod(0o644)
    model.write_text('{"weight": 0}')
    tiny.replace("evaluate.py", "round(weight, 3)", "round(weight, 4)")
    ran = tiny.run("build")
    assert ran.code == 5
    assert "digest mismatch in the store: the output of tiny:train was altered" in ran.err


def test_where_no_step_was_recorded_it_is_said(tiny: Tiny) -> None:
    drifting(tiny, "bitwise", loss="1")
    tiny.build()
    ran = tiny.run("verify", "--rebuild")
    assert "\n      no steps were recorded in either build\n" in ran.out


RECORDED = """
import json, os, struct, sys, time
from pathlib import Path

runs = int(time.time_ns() % 2**32)
columns = ["kind", "has", "source", "calls", "backwards", "batch", "python", "numpy", "torch",
           "loss", "gradients", "parameters", "value"]
folder = Path(os.environ.get("MODELBUILD_ROOT", "/build"), "trace")
with (folder / "steps-0.bin").open("wb") as file:
    head = {"modelbuild_trace": 1, "every": 1, "columns": columns}
    file.write((json.dumps(head) + "\\n").encode())
    for step in range(1, 391):
        batch = runs if step >= 12 else step
        file.write(struct.pack("<BBHHHIIIIIIId", 1, 15, 1, 1, 1, batch, 1, 1, 1, 1, 1, 1, 0.5))
(folder / "notes-0.txt").write_text("the script turned it off (train.py:3)\\n")
json.dump({"weight": runs}, open(sys.argv[3] + "/model.json", "w"))
json.dump({"loss": 1}, open(sys.argv[3] + "/metrics.json", "w"))
"""


def test_the_first_different_step_is_shown_with_no_further_run(tiny: Tiny) -> None:
    drifting(tiny, "bitwise", loss="1")
    tiny.write("train.py", RECORDED)
    tiny.build()
    ran = tiny.run("verify", "--rebuild")
    assert ran.code == 7
    says = "first different step: 12 of 390: the batch (data order)"
    assert f"\n      {says}\n      model.json  different\n" in ran.out
    assert "\n      note: the script turned it off (train.py:3)\n" in ran.out
    train = verdict(tiny, "--rebuild")["stages"]["train"]
    assert train["steps"] == says
    assert train["notes"] == ["the script turned it off (train.py:3)"]
    assert train["first_difference"] == {
        "step": 12,
        "steps": 390,
        "unit": "step",
        "process": "0",
        "column": "batch",
        "went_first": "data order",
        "operation": None,
        "line": None,
        "cause": None,
        "confirmed": None,
        "file": "model.json",
        "tensor": None,
    }
