"""`modelbuild diff`: what a reviewer is told of two locks, from the two locks alone."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from conftest import Tiny

from modelbuild.cli.diff_json import to_json
from modelbuild.cli.diff_markdown import diff_markdown
from modelbuild.cli.diff_text import diff_text
from modelbuild.cli.main import main
from modelbuild.review.difference import ClaimState, LockDifference, compare_locks
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import (
    Claim,
    Lock,
    LockedData,
    LockedEnvironment,
    LockedFile,
    LockedRecipe,
    LockedSeeds,
    LockedStage,
    LockedWheel,
    Upstream,
)
from modelbuild.spec.lock_file import render_lock
from modelbuild.spec.numeric_class import NumericClass
from modelbuild.spec.probes import Probes
from modelbuild.spec.seed_statistics import SeedStatistics

FACTS = {"cpu-vendor": "GenuineIntel", "libm": "b3:0123456789ab"}
CLASS = NumericClass(FACTS).key


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def a_wheel(name: str, version: str, licence: str = "MIT", content: str = "") -> LockedWheel:
    return LockedWheel(
        name=name,
        version=version,
        filename=f"{name}-{version}-py3-none-any.whl",
        sha256=digest(f"{name}{version}{content}").hex,
        bytes=1000,
        licence=licence,
    )


def an_environment(*wheels: LockedWheel) -> LockedEnvironment:
    return LockedEnvironment(
        python="3.11.7", platform="x86_64-manylinux_2_28", backend="cpu", wheels=wheels
    )


def a_claim(derivation: Digest, **metrics: float) -> Claim:
    return Claim(
        numeric_class=CLASS,
        derivation=derivation,
        output=digest(f"output {sorted(metrics.items())}"),
        bytes=2048,
        parameters=100,
        metrics=metrics,
    )


def train_stage(derivation: str = "train", **metrics: float) -> LockedStage:
    return LockedStage(
        derivation=digest(derivation),
        run=("python", "train.py"),
        reads=("data.digits", "params.lr"),
        code=("train.py",),
        claims=(a_claim(digest(derivation), **metrics),) if metrics else (),
    )


def evaluate_stage(
    derivation: str = "evaluate", train: str = "train", **metrics: float
) -> LockedStage:
    return LockedStage(
        derivation=digest(derivation),
        run=("python", "evaluate.py"),
        upstream={"stages.train": Upstream(stage="digits:train", derivation=digest(train).short)},
        code=("evaluate.py",),
        claims=(a_claim(digest(derivation), **metrics),) if metrics else (),
    )


WHEELS = (a_wheel("numpy", "2.4.6"), a_wheel("torch", "2.13.0"))


def a_recipe(environment: LockedEnvironment, name: str = "digits") -> LockedRecipe:
    return LockedRecipe(
        name=name,
        path=PurePosixPath(f"{name}/recipe.toml"),
        environment=environment.key,
        requires=("numpy>=2",),
        resolver="uv",
        runtime="1",
        code={
            "evaluate.py": LockedFile(digest=digest("evaluate.py"), lines=40),
            "train.py": LockedFile(digest=digest("train.py"), lines=88),
        },
        data={
            "digits": LockedData(
                digest=digest("digits"),
                file="digits.csv",
                files=1,
                bytes=57_523,
                rows=1797,
                columns=("age", "zip"),
                declared="path digits.csv",
            )
        },
        params={"lr": 0.001},
        seed=42,
        hardware={"cpu": "x86-64-v3", "device": "cpu", "threads": 1},
        stages={"evaluate": evaluate_stage(accuracy=0.97), "train": train_stage(loss=0.1)},
    )


def a_lock(*recipes: LockedRecipe, environment: LockedEnvironment | None = None) -> Lock:
    environment = environment or an_environment(*WHEELS)
    recipes = recipes or (a_recipe(environment),)
    return Lock(
        environments={environment.key: environment},
        recipes={recipe.name: recipe for recipe in recipes},
        classes={CLASS: FACTS},
    )


def changed(**fields: object) -> Lock:
    return a_lock(replace(a_recipe(an_environment(*WHEELS)), **fields))  # type: ignore[arg-type]


def with_wheels(*wheels: LockedWheel) -> Lock:
    """The same recipe on other packages, locked and not yet built."""
    environment = an_environment(*wheels)
    recipe = a_recipe(environment)
    stages = {
        name: replace(stage, derivation=digest(f"{name} {environment.key}"))
        for name, stage in recipe.stages.items()
    }
    return a_lock(replace(recipe, stages=stages), environment=environment)


def text(old: Lock, new: Lock) -> str:
    return diff_text(compare_locks(old, new), "old", "new")


def reasons(difference: LockDifference) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.reasons for stage in difference.recipes[0].stages}


def test_a_lock_compared_with_itself_says_that_nothing_differs() -> None:
    assert text(a_lock(), a_lock()) == "no recipe differs between old and new"


def test_a_changed_parameter_is_told_with_its_effect() -> None:
    new = changed(
        params={"lr": 0.002},
        stages={
            "evaluate": evaluate_stage("evaluate 2", accuracy=0.98),
            "train": train_stage("train 2", loss=0.05),
        },
    )
    assert text(a_lock(), new) == (
        "digits\n"
        "  train  rebuilds: params.lr\n"
        "  evaluate  rebuilds: stages.train\n"
        "  results\n"
        "    train  loss  0.1 -> 0.05  (-0.05, -50.0 %)\n"
        "    evaluate  accuracy  0.97 -> 0.98  (+0.01, +1.0 %)\n"
        "  parameters\n"
        "    lr  0.001 -> 0.002"
    )


def test_a_parameter_that_a_stage_does_not_read_is_no_reason() -> None:
    new = changed(params={"lr": 0.001, "unused": 1})
    difference = compare_locks(a_lock(), new)
    assert [stage.kind for stage in difference.recipes[0].stages] == ["unchanged", "unchanged"]
    assert "unused  1 (new)" in text(a_lock(), new)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"seed": 7}, ("seed",)),
        ({"hardware": {"cpu": "x86-64-v3", "device": "cpu", "threads": 2}}, ("hardware.threads",)),
        ({"runtime": "2"}, ("bootstrap",)),
        ({"allow": ("cumsum",)}, ("allow",)),
        ({"tf32": "false"}, ("tf32",)),
        (
            {"hardware": {"cpu": "x86-64-v3", "device": "cpu", "mkl": "unchanged", "threads": 1}},
            ("hardware.mkl",),
        ),
        ({}, ("env, processes of a stage or the metrics file",)),
    ],
)
def test_every_reason_to_rebuild_has_its_name(
    fields: dict[str, object], expected: tuple[str, ...]
) -> None:
    stages = {"evaluate": evaluate_stage(accuracy=0.97), "train": train_stage("moved")}
    new = changed(**fields, stages=stages)
    assert reasons(compare_locks(a_lock(), new))["train"] == expected


def test_tf32_and_mkl_are_told_with_their_values() -> None:
    hardware = {"cpu": "x86-64-v3", "device": "cpu", "mkl": "unchanged", "threads": 1}
    new = changed(tf32="false", hardware=hardware)
    said = text(a_lock(), new)
    assert "  settings\n    hardware.mkl  unchanged (new)\n    tf32  script -> false" in said
    settings = to_json(compare_locks(a_lock(), new))["recipes"]["digits"]["settings"]
    assert settings["tf32"] == {"old": "script", "new": False}


def test_changed_code_and_a_changed_command_are_reasons() -> None:
    recipe = a_recipe(an_environment(*WHEELS))
    files = {**recipe.code, "train.py": LockedFile(digest=digest("other"), lines=90)}
    stage = replace(train_stage("moved"), run=("python", "train.py", "--fast"))
    new = changed(code=files, stages={**recipe.stages, "train": stage})
    assert reasons(compare_locks(a_lock(), new))["train"] == ("command", "train.py")
    assert "train.py  88 -> 90 lines" in text(a_lock(), new)


def test_other_data_is_told_by_rows_bytes_and_columns() -> None:
    old = a_recipe(an_environment(*WHEELS)).data["digits"]
    data = replace(old, digest=digest("x"), rows=1800, bytes=60_000, columns=("age", "city"))
    said = text(a_lock(), changed(data={"digits": data}))
    assert "    digits  1,797 rows, 56.2 KiB -> 1,800 rows, 58.6 KiB\n" in said
    assert "    digits  columns: -zip +city" in said


def test_data_of_the_same_size_with_other_content_is_said() -> None:
    old = a_recipe(an_environment(*WHEELS)).data["digits"]
    said = text(a_lock(), changed(data={"digits": replace(old, digest=digest("x"))}))
    assert "digits  1,797 rows, 56.2 KiB (other content)" in said


def test_packages_up_down_added_and_removed() -> None:
    new = with_wheels(a_wheel("numpy", "2.10.0", "BSD"), a_wheel("scipy", "1.0"))
    said = text(a_lock(), new)
    assert "numpy  2.4.6 -> 2.10.0, licence MIT -> BSD" in said
    assert "scipy  1.0 (added, MIT)" in said
    assert "torch  2.13.0 (removed, MIT)" in said
    assert "not built since the change: its claims are stale" in said
    down = text(new, a_lock())
    assert "numpy  2.10.0 -> 2.4.6 (down)" in down


def test_the_same_file_name_with_other_bytes_is_an_alarm() -> None:
    new = with_wheels(WHEELS[0], a_wheel("torch", "2.13.0", content="evil"))
    difference = compare_locks(a_lock(), new)
    expected = "torch 2.13.0 has other bytes under the same file name: no honest index does that"
    assert difference.alarms == (expected,)
    assert text(a_lock(), new).startswith(f"ALARM: {expected}\n")
    assert "> [!CAUTION]\n> torch 2.13.0 has other bytes" in diff_markdown(difference, "a", "b")


def test_a_replaced_claim_is_an_alarm() -> None:
    stages = {"evaluate": evaluate_stage(accuracy=0.99), "train": train_stage(loss=0.1)}
    assert compare_locks(a_lock(), changed(stages=stages)).alarms == (
        "the claim of digits:evaluate was replaced: same inputs and class, another output",
    )


def test_an_edited_metric_is_an_alarm() -> None:
    stage = evaluate_stage(accuracy=0.97)
    edited = replace(stage, claims=(replace(stage.claims[0], metrics={"accuracy": 0.99}),))
    new = changed(stages={"evaluate": edited, "train": train_stage(loss=0.1)})
    assert compare_locks(a_lock(), new).alarms == (
        "the claim of digits:evaluate was edited: the same output has other metrics",
    )


def test_many_packages_are_folded_but_never_cut() -> None:
    old = with_wheels(*(a_wheel(f"p{number:03}", "1.0") for number in range(200)))
    new = with_wheels(
        *(a_wheel(f"p{number:03}", "1.1", "GPL" if number == 7 else "MIT") for number in range(200))
    )
    difference = compare_locks(old, new)
    said = diff_text(difference, "old", "new")
    assert "200 packages: 200 upgraded (--all lists them)" in said
    assert "p007  1.0 -> 1.1, licence MIT -> GPL" in said
    assert "p008" not in said
    assert diff_text(difference, "old", "new", everything=True).count("1.0 -> 1.1") == 200
    markdown = diff_markdown(difference, "old", "new")
    assert markdown.count("`p1") == 100
    assert "<summary>200 packages: 200 upgraded</summary>" in markdown


def test_a_claim_of_another_class_is_said_with_what_differs() -> None:
    facts = {**FACTS, "libm": "b3:ba9876543210"}
    key = NumericClass(facts).key
    stage = evaluate_stage(accuracy=0.97)
    moved = replace(stage, claims=(replace(stage.claims[0], numeric_class=key),))
    new = changed(stages={"evaluate": moved, "train": train_stage(loss=0.1)})
    new = replace(new, classes={**new.classes, key: facts})
    expected = (
        "evaluate  measured on another numeric class: libm  b3:0123456789ab -> b3:ba9876543210"
    )
    assert expected in text(a_lock(), new)


def test_new_and_removed_recipes() -> None:
    environment = an_environment(*WHEELS)
    both = a_lock(a_recipe(environment), a_recipe(environment, "more"))
    assert text(a_lock(), both).startswith("more (added)\n")
    assert "unchanged: digits" in text(a_lock(), both)
    assert text(both, a_lock()) == "more (removed)\n\nunchanged: digits"


def test_what_a_lock_holds_can_not_become_markup() -> None:
    new = changed(params={"lr": "<img src=x> @everyone [a](b)"})
    said = diff_markdown(compare_locks(a_lock(), new), "old", "`new`")
    assert "<img" not in said.replace("\\<img", "")
    assert "\\@everyone \\[a\\](b)" in said


def test_identical_output_from_other_inputs_is_said() -> None:
    stage = replace(train_stage("moved"), claims=(a_claim(digest("moved"), loss=0.1),))
    new = changed(params={"lr": 0.1}, stages={"train": stage})
    assert "train  came out identical from other inputs" in text(a_lock(), new)


def with_spread(stage: LockedStage, deviation: float) -> LockedStage:
    statistics = SeedStatistics(
        seeds=5,
        mean=stage.claims[0].metrics["accuracy"],
        deviation=deviation,
        low=0.9,
        high=1.0,
        least=0.9,
        most=1.0,
    )
    seeds = LockedSeeds(derivation=stage.derivation, numeric_class=CLASS, statistics=statistics)
    return replace(stage, seeds={"accuracy": seeds})


@pytest.mark.parametrize("measured", ["before", "after", "both"])
@pytest.mark.parametrize(
    ("deviation", "verdict"),
    [
        (0.001, "larger than seed noise"),
        (0.1, "within seed noise"),
        (0.0, None),
    ],
)
def test_a_gain_is_told_from_seed_noise(
    measured: str, deviation: float, verdict: str | None
) -> None:
    before, after = evaluate_stage(accuracy=0.97), evaluate_stage("moved", accuracy=0.98)
    if measured != "after":
        before = with_spread(before, deviation)
    if measured != "before":
        after = with_spread(after, deviation)
    train = train_stage(loss=0.1)
    old, new = (changed(stages={"evaluate": each, "train": train}) for each in (before, after))
    words = f", {verdict}" if verdict else ""
    expected = f"evaluate  accuracy  0.97 -> 0.98  (+0.01, +1.0 %){words}\n"
    assert expected in text(old, new) + "\n"
    assert f"+0.01, +1.0 %{words and f'<br>{verdict}'} |" in diff_markdown(
        compare_locks(old, new), "a", "b"
    )


PROBES = Probes(
    settings="5b9abb72c0d2",
    digest="89c6711e1a1b",
    operations={"erf": "3216", "libm": "f1c7", "lstm": "05a1"},
    threads={"torch": 1},
)


def probed(probes: Probes | None, *recipes: str, key: str = CLASS, threads: int = 1) -> Lock:
    """A lock that has probes of the environment of these recipes on a class."""
    environment = an_environment(*WHEELS)
    lock = a_lock(*(a_recipe(environment, name) for name in recipes))
    run = f"{environment.key}-x86-64-v3-{threads}"
    return replace(lock, probes={key: {run: probes}} if probes else {})


def test_other_probes_of_the_same_class_are_an_alarm() -> None:
    other = replace(
        PROBES, digest="0123456789ab", operations={**PROBES.operations, "lstm": "9b20", "erf": "0"}
    )
    old, new = probed(PROBES, "digits", "more"), probed(other, "digits", "more")
    difference = compare_locks(old, new)
    alarm = (
        f"numeric class {CLASS} gives other bits than it did: same machine facts and settings,"
        " other arithmetic in erf, lstm (probes of digits, more)"
    )
    assert difference.alarms == (alarm,)
    assert text(old, new) == f"ALARM: {alarm}\n\nno recipe differs between old and new"
    markdown = diff_markdown(difference, "old", "new")
    assert markdown.startswith(
        f"### Models: old → new\n\n> [!CAUTION]\n> numeric class {CLASS} gives other bits"
    )
    assert markdown.endswith("\n\nNo recipe differs.")
    assert "lstm 05a1 -> 9b20" in diff_text(difference, "old", "new", everything=True)
    (record,) = to_json(difference)["probes"]
    assert record == {
        "class": CLASS,
        "run": f"{an_environment(*WHEELS).key}-x86-64-v3-1",
        "kind": "other bits",
        "recipes": ["digits", "more"],
        "operations": ["erf", "lstm"],
        "old": {"settings": "5b9abb72c0d2", "digest": "89c6711e1a1b"},
        "new": {"settings": "5b9abb72c0d2", "digest": "0123456789ab"},
    }


def test_of_many_probes_that_differ_the_first_are_named() -> None:
    names = [f"op{number:02}" for number in range(20)]
    first = replace(PROBES, operations=dict.fromkeys(names, "0"))
    other = replace(first, digest="other", operations=dict.fromkeys(names, "1"))
    (alarm,) = compare_locks(probed(first), probed(other)).alarms
    assert "op00" in alarm
    assert "op11 and 8 more (probes of digits)" in alarm
    assert "op12" not in alarm


def test_probes_that_are_gone_or_edited_are_an_alarm() -> None:
    assert compare_locks(probed(PROBES), probed(None)).alarms == (
        f"the probes of digits on numeric class {CLASS} are gone, and its claims are not: other"
        " arithmetic would pass unseen",
    )
    edited = replace(PROBES, operations={"libm": "0000"})
    assert compare_locks(probed(PROBES), probed(edited)).alarms == (
        f"the probes of digits on numeric class {CLASS} were edited: the same digest has other"
        " content",
    )


def test_probes_that_went_with_their_class_or_environment_are_no_change() -> None:
    without = replace(probed(None), classes={})
    assert compare_locks(probed(PROBES), without).probes == ()
    others = with_wheels(a_wheel("numpy", "3.0"))
    assert compare_locks(probed(PROBES), others).probes == ()


def test_new_probes_of_a_new_class_are_folded() -> None:
    runs = {f"{an_environment(*WHEELS).key}-x86-64-v3-{threads}": PROBES for threads in (1, 2, 4)}
    facts = {**FACTS, "libm": "b3:ba9876543210"}
    key = NumericClass(facts).key
    claims = (a_claim(digest("train"), loss=0.1),)
    claims = tuple(replace(claim, numeric_class=key) for claim in claims)
    stage = replace(train_stage(), claims=claims)
    new = changed(stages={"train": stage})
    new = replace(new, classes={CLASS: FACTS, key: facts}, probes={key: runs})
    difference = compare_locks(a_lock(), new)
    assert difference.alarms == ()
    assert text(a_lock(), new).endswith(f"\n\nprobes\n  {key}  3 new (digits)")
    assert f"**Probes**\n\n- `{key}` 3 new (digits)" in diff_markdown(difference, "old", "new")


def test_probes_with_other_settings_are_said_not_to_be_comparable() -> None:
    other = replace(PROBES, settings="0123456789ab", digest="other")
    difference = compare_locks(probed(PROBES), probed(other))
    assert difference.alarms == ()
    said = diff_text(difference, "old", "new")
    assert said.endswith(f"probes\n  {CLASS}  1 with other settings, not to be compared (digits)")


def test_states_of_claims() -> None:
    stages = {"evaluate": evaluate_stage("moved"), "train": train_stage(loss=0.1)}
    difference = compare_locks(a_lock(), changed(stages=stages))
    states = {stage.name: stage.state for stage in difference.recipes[0].stages}
    assert states == {"evaluate": ClaimState.MISSING, "train": ClaimState.CURRENT}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose last commit has a lock, changed since."""
    for name, value in (("AUTHOR", "a"), ("COMMITTER", "c")):
        monkeypatch.setenv(f"GIT_{name}_NAME", value)
        monkeypatch.setenv(f"GIT_{name}_EMAIL", f"{value}@example.com")
    monkeypatch.chdir(tmp_path)
    git("init", "-q", "-b", "main")
    (tmp_path / "README").write_text("no lock yet\n")
    commit("begin")
    (tmp_path / "model.lock").write_bytes(render_lock(a_lock()))
    commit("lock")
    (tmp_path / "model.lock").write_bytes(render_lock(changed(params={"lr": 0.002})))
    return tmp_path


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)


def commit(message: str) -> None:
    git("add", "-A")
    git("commit", "-q", "-m", message)


def test_diff_compares_the_working_tree_with_head(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff"]) == 0
    assert "lr  0.001 -> 0.002" in capsys.readouterr().out


def test_diff_takes_revisions_and_files(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", "HEAD~1", "HEAD"]) == 0
    assert capsys.readouterr().out.startswith("digits (added)\n")
    (repository / "other.lock").write_bytes(render_lock(a_lock()))
    assert main(["diff", "other.lock", "HEAD"]) == 0
    assert capsys.readouterr().out == "no recipe differs between other.lock and HEAD\n"


def test_diff_works_below_the_top_of_a_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = repository / "team" / "models"
    folder.mkdir(parents=True)
    (folder / "model.lock").write_bytes(render_lock(a_lock()))
    commit("a workspace in a folder")
    (folder / "model.lock").write_bytes(render_lock(changed(seed=1)))
    monkeypatch.chdir(folder)
    assert main(["diff"]) == 0
    assert "seed  42 -> 1" in capsys.readouterr().out


def test_a_revision_that_is_not_there(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "nowhere"]) == 2
    assert capsys.readouterr().err == (
        "error: there is no git revision and no file 'nowhere'\n"
        f"  workspace: {repository}\n"
        "Name two locks to compare, by file or by revision: modelbuild diff main HEAD\n"
    )


def test_a_revision_that_looks_like_an_option_is_none(repository: Path) -> None:
    assert main(["diff", "--", "--output=stolen"]) == 2
    assert not (repository / "stolen").exists()


def test_json_has_both_sides_of_everything(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["recipes"]["digits"]["params"] == {"lr": {"old": 0.001, "new": 0.002}}
    assert record["recipes"]["digits"]["stages"]["train"]["claim"] == "current"
    assert record["unchanged"] == []


# -- a working tree that is not locked -------------------------------------------------------------

BEHIND = "model.lock is behind recipe.toml: modelbuild lock\n"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("recipe.toml", "lr = 0.5", "lr = 0.25"),
        ("recipe.toml", "seed = 7", "seed = 8"),
        ("recipe.toml", "seed = 7", 'seed = 7\nlevel = "functional"'),
        ("recipe.toml", "packages = []", 'packages = ["six"]'),
        ("recipe.toml", 'path = "numbers.txt"', 'path = "others.txt"'),
        ("recipe.toml", '"{params.lr}", "{out}"', '"{params.lr}", "{out}", "more"'),
        ("recipe.toml", "[determinism]", "[hardware]\nthreads = 2\n\n[determinism]"),
        ("recipe.toml", "schema = 1", "schema = 1\nnonsense = 2"),
        ("train.py", "import json", "import json  # changed"),
    ],
)
def test_what_is_not_locked_yet_is_told(branch: Tiny, file: str, old: str, new: str) -> None:
    same = branch.run("diff")
    assert (same.code, same.err) == (0, "")
    branch.replace(file, old, new)
    ran = branch.run("diff", "main", MODELBUILD_STORE="/nonexistent")
    assert (ran.code, ran.err) == (0, BEHIND)
    assert branch.run("diff", "main", "HEAD").err == ""


def test_a_recipe_that_was_never_locked_is_told(branch: Tiny) -> None:
    text = (branch.root / "recipe.toml").read_text()
    branch.write("more/recipe.toml", text.replace('"tiny"', '"more"'))
    ran = branch.run("diff", "--json")
    assert ran.json["recipes"] == {}
    assert ran.err == "model.lock is behind more/recipe.toml: modelbuild lock\n"


def test_a_recipe_on_top_of_another_is_locked_with_it(branch: Tiny) -> None:
    text = (branch.root / "recipe.toml").read_text()
    more = text.replace('"tiny"', '"more"').replace('path = "numbers.txt"', 'recipe = "tiny"')
    branch.write("more/recipe.toml", more)
    for script in ("train.py", "evaluate.py"):
        branch.write(f"more/{script}", (branch.root / script).read_text())
    assert branch.run("lock").code == 0
    assert branch.run("diff").err == ""
    branch.replace("more/recipe.toml", 'recipe = "tiny"', 'recipe = "tiny"\nstage = "train"')
    assert branch.run("diff").err == "model.lock is behind more/recipe.toml: modelbuild lock\n"
