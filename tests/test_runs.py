"""`runs`, `why` and `show`: what was built here, why it would be, and what went into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Tiny

from modelbuild.review.runs import runs
from modelbuild.spec.digest import Digest
from modelbuild.store.derivations import find_derivation
from modelbuild.store.store import Store


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()
    ]


def test_runs_shows_the_settings_in_which_runs_differ(tiny: Tiny) -> None:
    tiny.build()
    tiny.build("--set", "params.lr=0.25")
    told = rows(tiny.run("runs", "tiny:train").out)
    assert told[0] == ["id", "built (UTC)", "stage", "time", "lr", "metrics"]
    assert [row[4] for row in told[1:]] == ["0.25", "0.5"]
    both = rows(tiny.run("runs").out)
    assert {row[2] for row in both[1:]} == {"tiny:train", "tiny:evaluate"}


def test_runs_of_nothing(tiny: Tiny) -> None:
    assert tiny.run("runs").out == "nothing was built here\n"
    assert tiny.run("runs", "--json").json == []


def test_runs_of_what_there_is_not(tiny: Tiny) -> None:
    tiny.run("lock")
    assert tiny.run("runs", "tiny:train").out == "nothing was built here\n"
    for word, found in (("tini", "tiny"), ("tiny:trian", "tiny:train")):
        ran = tiny.run("runs", word)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"error: there is no {'stage' if ':' in word else 'recipe'} '")
        assert ran.err.endswith(f"Did you mean: {found}\n")


@pytest.mark.parametrize("command", ["runs", "history tiny"])
@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_is_one_or_more(tiny: Tiny, command: str, limit: str) -> None:
    ran = tiny.run(*command.split(), f"--limit={limit}")
    assert (ran.code, ran.out) == (2, "")
    assert f"argument --limit: '{limit}' is not a whole number from 1 on\n" in ran.err


def test_why_of_a_stage_that_there_is_not(tiny: Tiny) -> None:
    tiny.run("lock")
    for word in ("tiny:trian", "recipe.toml:trian"):
        ran = tiny.run("why", word)
        assert (ran.code, ran.out, ran.err) == (
            2,
            "",
            "error: there is no stage 'trian'\n  found: evaluate, train\nDid you mean: train\n",
        )


def test_runs_says_how_many_are_not_shown(tiny: Tiny) -> None:
    tiny.build()
    assert tiny.run("runs", "--limit", "1").out.endswith(
        "and 1 older ones (--limit 2 lists them)\n"
    )


def test_runs_json(tiny: Tiny) -> None:
    built = tiny.build()
    (record,) = tiny.run("runs", "tiny:train", "--json").json
    assert record["output"] == built["train"]["output"]
    assert record["settings"] == {
        "lr": 0.5,
        "seed": 7,
        "hardware.threads": 1,
        "hardware.cpu": "x86-64-v3",
    }
    assert record["metrics"] == built["train"]["metrics"]


def test_why_names_the_field_that_moved(tiny: Tiny) -> None:
    tiny.build()
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    tiny.replace("evaluate.py", "round(weight, 3)", "round(weight, 4)")
    lines = tiny.run("why", "tiny").out.splitlines()
    assert lines[0] == "tiny:train would build"
    assert lines[2] == "    params.lr  0.5 -> 0.25"
    assert lines[3] == "tiny:evaluate would build"
    assert lines[5].startswith("    code.evaluate.py  b3:")
    assert lines[6].split()[0] == "stages.train"
    assert lines[6].endswith("-> not built yet")


def test_why_of_what_is_built_names_what_moved_since_the_build_before(tiny: Tiny) -> None:
    tiny.build("--set", "params.lr=0.25")
    tiny.build()
    lines = tiny.run("why", "tiny:train").out.splitlines()
    assert lines[0].startswith("tiny:train is built: ")
    assert lines[2] == "    params.lr  0.25 -> 0.5"
    assert len(lines) == 3


def test_why_compares_with_the_claimed_build_and_not_with_later_experiments(tiny: Tiny) -> None:
    tiny.build()
    tiny.build("--set", "params.lr=0.25")
    tiny.build("--set", "seed=9", "--set", "params.lr=0.125")
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.3")
    assert tiny.run("why", "tiny:train").out.splitlines()[2:] == ["    params.lr  0.5 -> 0.3"]


def test_why_without_a_claimed_build_compares_with_the_nearest(tiny: Tiny) -> None:
    tiny.run("lock")
    tiny.build("--set", "params.lr=0.25")
    tiny.build("--set", "seed=9", "--set", "params.lr=0.125")
    assert tiny.run("why", "tiny:train").out.splitlines()[2:] == ["    params.lr  0.25 -> 0.5"]


def test_why_of_what_was_never_built(tiny: Tiny) -> None:
    tiny.run("lock")
    assert tiny.run("why", "tiny:train").out == "tiny:train would build\n  never built here\n"


def test_why_with_other_values_builds_nothing(tiny: Tiny) -> None:
    tiny.build()
    before = (tiny.root / "model.lock").read_bytes()
    out = tiny.run("why", "tiny:train", "--set", "params.lr=1.5", "--json")
    assert out.json == [
        {
            "stage": "tiny:train",
            "how": "would build",
            "path": None,
            "last": out.json[0]["last"],
            "moved": {"params.lr": {"old": 0.5, "new": 1.5}},
        }
    ]
    assert (tiny.root / "model.lock").read_bytes() == before


def test_why_of_a_path_says_who_keeps_it(tiny: Tiny) -> None:
    built = tiny.build()
    record = tiny.run("why", "--json", "result-tiny-train").json
    assert record == {
        "path": built["train"]["path"],
        "made_by": ["tiny:train"],
        "links": [str(tiny.root / "result-tiny-train")],
        "claimed": ["tiny:train"],
        "used_by": ["tiny:evaluate"],
    }
    (tiny.root / "result-tiny-train").unlink()
    assert tiny.run("why", "--json", built["train"]["path"]).json["links"] == []


def test_show_is_a_tree_down_to_the_data(tiny: Tiny) -> None:
    tiny.build()
    out = tiny.run("show", "tiny").out
    assert out.startswith("tiny:evaluate  ")
    assert "└─ stages.train: tiny:train  " in out
    assert "   │  lr = 0.5" in out
    assert "6 B: path numbers.txt" in out
    assert "├─ seed: 7\n├─ tf32: script\n├─ mkl: patched\n" in out


def test_show_takes_a_run_a_recipe_and_a_path(tiny: Tiny) -> None:
    built = tiny.build()
    (run,) = tiny.run("runs", "tiny:train", "--json").json
    by_id = tiny.run("show", run["id"], "--json").json
    assert by_id == tiny.run("show", "tiny:train", "--json").json
    assert by_id == tiny.run("show", "result-tiny-train", "--json").json
    assert by_id["output"] == built["train"]["output"]
    assert by_id["inputs"]["params"] == {"lr": 0.5}


def test_show_of_what_is_not_built_and_of_nothing(tiny: Tiny) -> None:
    tiny.run("lock")
    ran = tiny.run("show", "tiny")
    assert (ran.code, ran.err) == (
        1,
        "error: tiny:evaluate is not built here\nTo build it: modelbuild build\n",
    )
    ran = tiny.run("show", "0123456789")
    assert (ran.code, ran.err) == (
        2,
        "error: no run is named '0123456789'\nTo list what was built here: modelbuild runs\n",
    )


def test_a_derivation_that_was_altered_is_not_believed(tiny: Tiny, store: Store) -> None:
    built = tiny.build()
    resolved = Digest.parse(tiny.run("runs", "tiny:train", "--json").json[0]["resolved"])
    assert find_derivation(resolved, store) is not None
    file = Path(store.root, "derivations", f"{resolved.store_key}.json")
    content = json.loads(file.read_bytes())
    content["params"]["lr"] = 0.6
    file.chmod(0o600)
    file.write_text(json.dumps(content))
    assert find_derivation(resolved, store) is None
    assert next(run for run in runs(store, "tiny", "train")).inputs == {}
    assert built["train"]["how"] == "built"


def test_two_runs_are_compared_by_their_ids(tiny: Tiny) -> None:
    tiny.build()
    tiny.build("--set", "params.lr=0.25")
    later, earlier = (run["id"] for run in tiny.run("runs", "tiny:train", "--json").json)
    lines = tiny.run("compare", earlier, later).out.splitlines()
    assert lines[0].startswith(f"A: {earlier} tiny:train, built ")
    assert lines[2] == "lr    0.5 -> 0.25"
    assert lines[3].startswith("loss  ")
    assert lines[3].endswith(", -50.0 %)")
    record = tiny.run("compare", earlier, earlier, "--json").json
    assert (record["identical"], record["settings"]) == (True, {})


def test_a_run_to_compare_that_is_not_there(tiny: Tiny) -> None:
    ran = tiny.run("compare", "0123456789", "abcdef0123")
    assert (ran.code, ran.err) == (
        2,
        "error: no run is named '0123456789'\nTo list what was built here: modelbuild runs\n",
    )
