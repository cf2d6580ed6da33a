"""Never a stale model, never a lost claim: one test for each way to break it that was found."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

from conftest import Tiny, how, share_interpreter
from test_verify import drifting, forget

from modelbuild.build.unchanged import TRUSTED_AFTER_NS
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import Lock
from modelbuild.spec.lock_file import parse_lock, render_lock
from modelbuild.store.store import Store


def lock_of(tiny: Tiny) -> Lock:
    return parse_lock((tiny.root / "model.lock").read_bytes())


def another_store(tmp_path: Path, interpreter: Path) -> str:
    share_interpreter(tmp_path / "another", interpreter)
    return str(tmp_path / "another")


def settle(tiny: Tiny, *arguments: str, **variables: str) -> None:
    """Build until the answer is remembered."""
    tiny.build(*arguments, **variables)
    time.sleep(TRUSTED_AFTER_NS / 1e9 + 0.1)
    tiny.build(*arguments, **variables)


def test_a_corrupt_object_is_not_taken_for_a_new_output(tiny: Tiny, store: Store) -> None:
    output = Path(tiny.build()["evaluate"]["path"])
    (output / "metrics.json").chmod(0o644)
    (output / "metrics.json").write_text('{"score": 99}')
    forget(store)
    path = Path(tiny.build()["evaluate"]["path"])
    assert path == output
    assert "99" not in (path / "metrics.json").read_text()
    assert len(list((store.root / "corrupt").iterdir())) == 1


def test_a_link_to_another_recipe_is_followed_each_time(tiny: Tiny) -> None:
    for version in ("v1", "v2"):
        shutil.copytree(tiny.root, tiny.root.parent / "both" / version)
    both = Tiny(tiny.root.parent / "both")
    both.replace("v2/recipe.toml", '"tiny"', '"other"')
    both.replace("v2/recipe.toml", "lr = 0.5", "lr = 0.25")
    (both.root / "current").symlink_to("v1")
    settle(both, "current")
    first = both.build("current")
    (both.root / "current").unlink()
    (both.root / "current").symlink_to("v2")
    assert both.build("current")["train"]["derivation"] != first["train"]["derivation"]


def test_another_configuration_of_locations_is_noticed(tiny: Tiny, tmp_path: Path) -> None:
    tiny.replace("recipe.toml", 'path = "numbers.txt"', 'location = "shelf"\nfile = "numbers.txt"')
    for name, text in (("one", "1\n2\n3\n"), ("two", "9\n")):
        (tmp_path / name / "modelbuild").mkdir(parents=True)
        (tmp_path / name / "numbers.txt").write_text(text)
        (tmp_path / name / "modelbuild" / "config.toml").write_text(
            f'[locations]\nshelf = "{tmp_path / name}"\n'
        )
    settle(tiny, XDG_CONFIG_HOME=str(tmp_path / "one"))
    assert tiny.run("build", XDG_CONFIG_HOME=str(tmp_path / "two")).code == 5


def test_a_nearer_lock_is_noticed(tiny: Tiny) -> None:
    shutil.copytree(tiny.root, tiny.root.parent / "outer" / "inner")
    outer = Tiny(tiny.root.parent / "outer")
    outer.write("model.lock", render_lock(Lock()).decode())
    settle(outer, "inner")
    outer.write("inner/model.lock", render_lock(Lock()).decode())
    assert outer.run("build", "inner", "--locked").code == 4
    outer.build("inner")
    assert "recipes.tiny" in (outer.root / "inner" / "model.lock").read_text()


def test_a_second_recipe_of_one_name_does_not_replace_the_first(tiny: Tiny) -> None:
    shutil.copytree(tiny.root, tiny.root / "second")
    tiny.build()
    before = (tiny.root / "model.lock").read_bytes()
    ran = tiny.run("build", "second")
    assert ran.code == 3
    assert ran.err == (
        "error: two recipes have the name 'tiny'\n"
        "  first:  recipe.toml:4\n"
        "  second: second/recipe.toml:4\n"
        "Give one of them another [model] name.\n"
    )
    assert (tiny.root / "model.lock").read_bytes() == before


def test_locking_a_recipe_keeps_the_interpreters_that_others_accepted(tiny: Tiny) -> None:
    tiny.run("lock")
    lock = lock_of(tiny)
    (key,) = lock.environments
    colleague = Digest.of(b"a colleague's build of Python")
    accepted = tuple(sorted([*lock.environments[key].interpreters, colleague]))
    environment = replace(lock.environments[key], interpreters=accepted)
    (tiny.root / "model.lock").write_bytes(
        render_lock(replace(lock, environments={key: environment}))
    )
    shutil.copytree(tiny.root, tiny.root / "second", ignore=shutil.ignore_patterns("model.lock"))
    tiny.replace("second/recipe.toml", '"tiny"', '"second"')
    assert tiny.run("lock", "second").code == 0
    assert colleague in lock_of(tiny).environments[key].interpreters


def test_nothing_is_claimed_on_top_of_what_did_not_reproduce(
    tiny: Tiny, tmp_path: Path, interpreter_object: Path
) -> None:
    drifting(tiny, "bitwise", loss="1")
    tiny.build()
    tiny.replace("evaluate.py", "round(weight, 3)", "round(weight, 4)")
    elsewhere = another_store(tmp_path, interpreter_object)
    assert tiny.run("build", MODELBUILD_STORE=elsewhere).code == 7
    assert lock_of(tiny).recipes["tiny"].stages["evaluate"].current_claims == ()


def test_a_renamed_recipe_keeps_its_claims(tiny: Tiny) -> None:
    tiny.build()
    before = lock_of(tiny).recipes["tiny"].stages
    tiny.replace("recipe.toml", '"tiny"', '"small"')
    assert tiny.run("lock").code == 0
    lock = lock_of(tiny)
    assert list(lock.recipes) == ["small"]
    after = lock.recipes["small"].stages
    assert {name: stage.current_claims for name, stage in after.items()} == {
        name: stage.current_claims for name, stage in before.items()
    }
    assert all(stage.current_claims for stage in after.values())


def test_a_file_that_only_looks_like_a_model_does_not_fail_the_build(tiny: Tiny) -> None:
    tiny.replace(
        "train.py",
        "import json,",
        "import io, zipfile\n"
        "memory = io.BytesIO()\n"
        "zipfile.ZipFile(memory, 'w').writestr('archive/data.pkl', b'x')\n"
        "content = bytearray(memory.getvalue())\n"
        "content[-6:-2] = (0xFFFFFFF0).to_bytes(4, 'little')\n"
        "import sys\n"
        "open(sys.argv[3] + '/model.pt', 'wb').write(content)\n"
        "import json,",
    )
    assert how(tiny.build())["train"] == "built"


def test_a_corrupt_output_that_does_not_reproduce_is_both(tiny: Tiny) -> None:
    drifting(tiny, "bitwise", loss="1")
    model = Path(tiny.build()["train"]["path"]) / "model.json"
    model.chmod(0o644)
    model.write_text("{}")
    ran = tiny.run("verify", "--rebuild", "--json")
    assert ran.code == 5
    train = ran.json["recipes"]["tiny"]["stages"]["train"]
    assert (train["store"], train["rebuild"]) == ("corrupt", "different")
    assert len(train["problems"]) == 2


def test_a_stage_that_fails_in_a_rebuild_leaves_the_other_verdicts(tiny: Tiny) -> None:
    tiny.replace("train.py", "import json,", "import os, json,")
    tiny.write("numbers.txt", "1\n")
    tiny.replace("train.py", "json.dump", "assert not os.path.exists(sys.argv[1] + 'x')\njson.dump")
    tiny.build()
    score = Path(tiny.build()["evaluate"]["path"]) / "metrics.json"
    score.chmod(0o644)
    score.write_text("{}")
    recipe = tiny.run("verify", "--rebuild", "--json").json["recipes"]["tiny"]
    assert recipe["lock"] == "current"
    assert recipe["stages"]["train"]["rebuild"] == "identical"
    assert recipe["stages"]["evaluate"]["store"] == "corrupt"


def test_paranoid_reads_data_again(tiny: Tiny, store: Store) -> None:
    tiny.replace("recipe.toml", 'path = "numbers.txt"', 'path = "numbers"')
    tiny.replace("train.py", "open(sys.argv[1])", "open(sys.argv[1] + '/a')")
    data = tiny.write("numbers/a", "1\n2\n3\n")
    settle(tiny)
    # As if the file had been written through a shared mapping: its status says nothing.
    kept = {path: path.read_bytes() for path in (store.root / "stat-cache").iterdir()}
    data.write_text("1\n2\n4\n")
    status = data.stat()
    for path, content in kept.items():
        path.write_bytes(content)
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert tiny.run("verify", "--paranoid").code == 5


def test_a_recipe_that_is_gone_makes_the_lock_stale(tiny: Tiny) -> None:
    shutil.copytree(tiny.root, tiny.root / "second")
    tiny.replace("second/recipe.toml", '"tiny"', '"second"')
    assert tiny.run("lock").code == 0
    shutil.rmtree(tiny.root / "second")
    ran = tiny.run("lock", "--check")
    assert ran.code == 4
    assert "second: its recipe is gone" in ran.err
    assert tiny.run("lock").code == 0
    assert list(lock_of(tiny).recipes) == ["tiny"]


def test_a_metrics_file_that_is_no_file_fails_the_stage(tiny: Tiny) -> None:
    tiny.write("train.py", "import os, sys\nos.mkfifo(sys.argv[3] + '/metrics.json')\n")
    ran = tiny.run("build")
    assert ran.code == 6
    assert "found: metrics.json is no file of the output" in ran.err


def test_locked_without_isolation_needs_claims_too(tiny: Tiny) -> None:
    tiny.run("lock")
    assert tiny.run("build", "--locked", "--isolation", "none").code == 4


def test_logs_of_another_workspace_are_not_shown(tiny: Tiny) -> None:
    tiny.build()
    shutil.copytree(tiny.root, tiny.root.parent / "twin", symlinks=True)
    twin = Tiny(tiny.root.parent / "twin")
    twin.replace("recipe.toml", "lr = 0.5", "lr = 0.75")
    ran = twin.run("log", "tiny:train")
    assert (ran.code, ran.out) == (1, "")


def test_two_stores_do_not_lose_each_others_changes_of_the_lock(
    tiny: Tiny, tmp_path: Path, interpreter_object: Path
) -> None:
    import subprocess

    elsewhere = another_store(tmp_path, interpreter_object)
    for name in ("a", "b", "c", "d"):
        shutil.copytree(tiny.root, tiny.root.parent / "many" / name)
        Tiny(tiny.root.parent / "many").replace(f"{name}/recipe.toml", '"tiny"', f'"{name}"')
    many = tiny.root.parent / "many"
    (many / ".git").mkdir()
    commands = [
        subprocess.Popen(
            tiny.command("lock", "--quiet", name),
            cwd=many,
            env={**os.environ, "MODELBUILD_STORE": where},
        )
        for name, where in zip("abcd", [str(tmp_path / "store"), elsewhere] * 2, strict=True)
    ]
    assert [command.wait() for command in commands] == [0, 0, 0, 0]
    assert list(lock_of(Tiny(many)).recipes) == ["a", "b", "c", "d"]


def test_a_change_that_is_taken_back_keeps_the_claims(tiny: Tiny, store: Store) -> None:
    drifting(tiny, "bitwise")
    tiny.build()
    before = (tiny.root / "model.lock").read_bytes()
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    assert tiny.run("lock").code == 0
    assert tiny.run("verify").code == 4  # the claims are those of another derivation
    tiny.replace("recipe.toml", "lr = 0.25", "lr = 0.5")
    assert tiny.run("lock").code == 0
    assert (tiny.root / "model.lock").read_bytes() == before
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    assert tiny.run("lock").code == 0
    forget(store)
    tiny.replace("recipe.toml", "lr = 0.25", "lr = 0.5")
    assert tiny.run("build").code == 7


def test_an_altered_output_is_neither_valid_nor_exported(tiny: Tiny) -> None:
    settle(tiny)
    score = Path(tiny.build()["evaluate"]["path"]) / "metrics.json"
    score.chmod(0o644)
    score.write_text("{}")
    for command in (["build"], ["export", "tiny", "copy"]):
        ran = tiny.run(*command)
        assert ran.code == 5
        assert "digest mismatch in the store: the output of tiny:evaluate was altered" in ran.err
    assert not (tiny.root / "copy").exists()


def test_a_script_that_is_not_in_the_code_is_named_before_anything_runs(tiny: Tiny) -> None:
    tiny.replace("recipe.toml", '"train.py"', '"trian.py"')
    ran = tiny.run("lock")
    assert ran.code == 3
    assert ran.err.endswith(
        "error: recipe.toml:23: stage 'train' runs trian.py, which is not in the code\n"
        "  wanted: a file that [code] include takes in\n"
        "  found:  trian.py\n"
        "Did you mean 'train.py'?\n"
    )


def test_data_that_is_declared_and_opened_by_its_path_is_explained(tiny: Tiny) -> None:
    tiny.replace("train.py", "open(sys.argv[1])", "open('numbers.txt')")
    ran = tiny.run("build")
    assert ran.code == 6
    assert "numbers.txt is declared as data 'numbers'" in ran.err
    assert "MODELBUILD_DATA_NUMBERS" in ran.err
