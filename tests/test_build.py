"""A recipe builds: in order, once, and again only where something changed."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import time
from pathlib import Path

from conftest import Tiny, how, share_interpreter
from small_recipes import small_recipe

from modelbuild.store.store import Store


def test_a_first_build_locks_builds_claims_and_prints_the_path(tiny: Tiny, store: Store) -> None:
    ran = tiny.run("build")
    assert ran.code == 0, ran.err
    path = Path(ran.out.strip().splitlines()[-1])
    assert path.parent == store.root / "objects"
    assert path.name.endswith("-tiny-evaluate")
    assert json.loads((path / "metrics.json").read_text()).keys() == {"score"}
    lock = (tiny.root / "model.lock").read_text()
    assert lock.count("derivation = ") == 4  # two stages, two claims
    assert "locked tiny: not locked yet" in ran.err


def test_nothing_to_do_is_valid(tiny: Tiny) -> None:
    assert how(tiny.build()) == {"train": "built", "evaluate": "built"}
    before = (tiny.root / "model.lock").read_bytes()
    assert how(tiny.build()) == {"train": "valid", "evaluate": "valid"}
    assert how(tiny.build("--locked")) == {"train": "valid", "evaluate": "valid"}
    assert (tiny.root / "model.lock").read_bytes() == before


def test_changing_only_the_evaluation_reruns_only_the_evaluation(tiny: Tiny) -> None:
    tiny.build()
    tiny.replace("evaluate.py", "round(weight, 3)", "round(weight, 4)")
    assert how(tiny.build()) == {"train": "valid", "evaluate": "built"}


def test_a_stage_that_comes_out_identical_stops_what_follows(tiny: Tiny) -> None:
    first = tiny.build()
    tiny.replace("train.py", 'print("training on"', 'print("Training on"')
    second = tiny.build()
    assert how(second) == {"train": "built", "evaluate": "valid"}
    assert second["train"]["output"] == first["train"]["output"]
    assert second["evaluate"]["derivation"] != first["evaluate"]["derivation"]


def test_a_changed_parameter_seed_or_thread_count_rebuilds(tiny: Tiny) -> None:
    tiny.build()
    for old, new in (
        ("lr = 0.5", "lr = 0.25"),
        ("seed = 7", "seed = 8"),
        ("[determinism]", "[hardware]\nthreads = 2\n\n[determinism]"),
    ):
        tiny.replace("recipe.toml", old, new)
        assert how(tiny.build())["train"] == "built", new


def test_a_parameter_that_no_stage_names_rebuilds_nothing(tiny: Tiny) -> None:
    tiny.build()
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.5\nunused = 3")
    assert how(tiny.build()) == {"train": "valid", "evaluate": "valid"}


def test_changed_data_is_a_digest_mismatch_until_it_is_updated(tiny: Tiny) -> None:
    tiny.build()
    (tiny.root / "numbers.txt").write_text("1\n2\n4\n")
    ran = tiny.run("build")
    assert ran.code == 5
    assert ran.err.startswith("error: digest mismatch in data 'numbers' of recipe.toml\n")
    assert "If the change is intended: modelbuild lock --update numbers" in ran.err
    assert tiny.run("lock", "--update", "numbers").code == 0
    assert how(tiny.build())["train"] == "built"


def test_the_output_is_the_same_whatever_the_caller_has_in_its_environment(
    tiny: Tiny, tmp_path: Path, interpreter_object: Path
) -> None:
    first = tiny.build()
    other_store = tmp_path / "elsewhere" / "store"
    share_interpreter(other_store, interpreter_object)
    other = Tiny(tmp_path / "another place" / "ws")
    other.root.parent.mkdir()
    subprocess.run(["cp", "-r", tiny.root, other.root], check=True)
    before = os.umask(0o077)
    try:
        second = other.build(
            MODELBUILD_STORE=str(other_store),
            HOME=str(tmp_path),
            TZ="Asia/Tokyo",
            PYTHONHASHSEED="99",
            OMP_NUM_THREADS="7",
            OPENBLAS_CORETYPE="Sandybridge",
        )
    finally:
        os.umask(before)
    assert how(second) == {"train": "built", "evaluate": "built"}
    for stage in ("train", "evaluate"):
        assert second[stage]["output"] == first[stage]["output"]
        assert second[stage]["claim"] == "identical"
        assert second[stage]["derivation"] == first[stage]["derivation"]


def test_outputs_are_read_only_and_links_point_at_them(tiny: Tiny) -> None:
    stages = tiny.build()
    output = Path(stages["train"]["path"])
    assert stat.S_IMODE(output.stat().st_mode) == 0o555
    assert stat.S_IMODE((output / "model.json").stat().st_mode) == 0o444
    assert (tiny.root / "result-tiny").readlink() == Path(stages["evaluate"]["path"])
    assert (tiny.root / "result-tiny-train").readlink() == output


def test_dry_run_says_what_would_be_built_and_builds_nothing(tiny: Tiny, store: Store) -> None:
    assert how(tiny.build("--dry-run")) == {"train": "would build", "evaluate": "would build"}
    assert not (store.root / "realisations").exists()
    assert not (tiny.root / "model.lock").exists()


def test_an_experiment_changes_neither_the_lock_nor_the_claims(tiny: Tiny) -> None:
    tiny.build()
    before = (tiny.root / "model.lock").read_bytes()
    stages = tiny.build("--set", "params.lr=0.125")
    assert how(stages)["train"] == "built"
    assert (tiny.root / "model.lock").read_bytes() == before


def test_locked_fails_on_a_stale_lock_and_writes_nothing(tiny: Tiny) -> None:
    tiny.build()
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    before = (tiny.root / "model.lock").read_bytes()
    ran = tiny.run("build", "--locked")
    assert ran.code == 4
    assert ran.err == (
        "error: model.lock is out of date\n"
        "  tiny: parameters: lr\n"
        "To bring it up to date: modelbuild lock\n"
    )
    assert (tiny.root / "model.lock").read_bytes() == before


def test_two_processes_build_the_same_derivation_once(tiny: Tiny, store: Store) -> None:
    tiny.replace("train.py", "import json, random, sys", "import json, random, sys, time")
    tiny.replace("train.py", 'print("training on"', 'time.sleep(1); print("training on"')
    tiny.run("lock")
    first = start(tiny, "build", "--json")
    wait_for(lambda: list((store.root / "logs").rglob("*.log")))
    first.send_signal(signal.SIGSTOP)
    second = start(tiny, "build", "--json")
    assert second.stderr
    waiting = f"tiny:train: waiting for process {first.pid}, which builds the same\n"
    assert waiting in iter(second.stderr.readline, "")
    first.send_signal(signal.SIGCONT)
    results = [command.communicate() for command in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), results
    hows = [json.loads(out)["stages"]["train"]["how"] for out, _ in results]
    assert hows == ["built", "valid"]


def test_the_log_of_a_stage_is_shown(tiny: Tiny) -> None:
    tiny.build()
    assert tiny.run("log", "tiny:train").out == "training on 3\n"


def test_export_copies_an_output_that_can_be_written(tiny: Tiny) -> None:
    tiny.build()
    assert tiny.run("export", "tiny:train", "mine").code == 0
    (tiny.root / "mine" / "model.json").write_text("changed")
    again = tiny.run("export", "tiny:train", "mine")
    assert again.code == 1
    assert "mine is there already" in again.err


def test_a_stage_of_another_recipe_is_an_input(tiny: Tiny) -> None:
    tiny.write(
        "other/recipe.toml",
        small_recipe(
            "other",
            '[data.base]\nrecipe = "tiny"\nstage = "train"',
            "[stages.copy]\n"
            'run = ["python", "copy.py", "{data.base}/model.json", "{out}/copied.json"]',
        ),
    )
    tiny.write("other/copy.py", "import shutil, sys; shutil.copyfile(*sys.argv[1:])\n")
    tiny.run("lock")
    stages = tiny.build("other/recipe.toml")
    assert how(stages) == {"copy": "built"}
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    assert how(tiny.build("other/recipe.toml")) == {"copy": "built"}


def test_wall_time_cpu_time_and_memory_are_recorded(tiny: Tiny) -> None:
    tiny.replace("train.py", "import json", "block = bytearray(200_000_000)\nimport json")
    train = tiny.build()["train"]
    assert train["seconds"] > 0
    assert train["cpu_seconds"] > 0
    assert train["peak_memory_bytes"] > 190_000_000


def test_an_interrupted_build_leaves_nothing_and_the_next_one_succeeds(
    tiny: Tiny, store: Store
) -> None:
    tiny.replace("train.py", "import json, random, sys", "import json, random, sys, time")
    tiny.replace("train.py", 'print("training on"', 'print(); time.sleep(60); print("training on"')
    tiny.run("lock")
    for number in (signal.SIGINT, signal.SIGKILL):
        command = start(tiny, "build")
        wait_until_printed(store)
        command.send_signal(number)
        _, err = command.communicate(timeout=20)
        assert command.returncode == (130 if number == signal.SIGINT else -number), err
        assert "Traceback" not in err
        assert not (store.root / "realisations").exists()
        for log in (store.root / "logs").rglob("*.log"):
            log.unlink()
    tiny.replace("train.py", "time.sleep(60)", "time.sleep(0)")
    assert how(tiny.build()) == {"train": "built", "evaluate": "built"}
    assert list((store.root / "tmp").iterdir()) == []


def start(tiny: Tiny, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        tiny.command(*arguments),
        cwd=tiny.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_printed(store: Store) -> None:
    """Until a stage runs and its log has something."""
    wait_for(lambda: any(log.read_text() for log in (store.root / "logs").rglob("*.log")))


def wait_for(condition: object, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
