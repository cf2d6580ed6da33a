"""The library's front door: typed records, typed errors, nothing printed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Tiny, share_interpreter

import modelbuild
from modelbuild import errors
from modelbuild.build.request import BuildResult, Silent, StageResult
from modelbuild.errors import (
    DigestMismatchError,
    InvalidInputError,
    ModelbuildError,
    OutOfDateError,
    StageFailedError,
    UsageError,
)
from modelbuild.locking.front import LockReport
from modelbuild.spec.derivation import StageId
from modelbuild.store.realisations import Realisation
from modelbuild.store.store import Store
from modelbuild.verify.verdict import VerifyReport

PAGE = (Path(__file__).parent.parent / "docs" / "library.md").read_text()


@pytest.fixture(autouse=True)
def silent(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The library prints nothing."""
    yield
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def recipe(tiny: Tiny) -> Path:
    return tiny.root / "recipe.toml"


def test_the_page_runs_as_it_stands(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tiny.root)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block, names)
        printed = capfd.readouterr().out.splitlines()
        promised = re.findall(r"^print\(.*\) +# (.*)$", block, re.MULTILINE)
        assert [line for line in printed if line in promised] == promised
    assert names["weights"].startswith('{"weight"')  # type: ignore[attr-defined]


def test_the_page_has_every_error_with_its_exit_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+Error)` \| (\d+) \|", PAGE, re.MULTILINE))
    known = [each for each in vars(errors).values() if isinstance(each, type)]
    classes = [each for each in known if issubclass(each, ModelbuildError)]
    assert rows == {c.__name__: str(c.exit_code) for c in classes}


def test_locking_says_what_moved(tiny: Tiny, recipe: Path) -> None:
    first = modelbuild.lock(recipe)
    assert isinstance(first, LockReport)
    assert (first.written, first.changed) == (True, {"tiny": ["not locked yet"]})
    again = modelbuild.lock(recipe)
    assert (again.written, again.changed) == (False, {})
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    moved = modelbuild.lock(folder=tiny.root)
    assert moved.changed == {"tiny": ["parameters: lr"]}


def test_a_check_raises_what_is_stale_and_writes_nothing(tiny: Tiny, recipe: Path) -> None:
    modelbuild.lock(recipe)
    before = (tiny.root / "model.lock").read_bytes()
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    with pytest.raises(OutOfDateError) as caught:
        modelbuild.lock(recipe, check=True)
    assert str(caught.value) == (
        "model.lock is out of date\n  tiny: parameters: lr\nTo bring it up to date: modelbuild lock"
    )
    assert (tiny.root / "model.lock").read_bytes() == before


def test_changed_data_moves_only_where_it_is_named(tiny: Tiny, recipe: Path) -> None:
    modelbuild.lock(recipe)
    (tiny.root / "numbers.txt").write_text("4\n")
    with pytest.raises(DigestMismatchError):
        modelbuild.lock(recipe)
    report = modelbuild.lock(recipe, update={"numbers"})
    assert report.changed == {"tiny": ["data: numbers"]}


def test_building_returns_the_stages_with_their_records(recipe: Path, store: Store) -> None:
    result = modelbuild.build(recipe)
    assert isinstance(result, BuildResult)
    assert list(result.stages) == [StageId("tiny", "train"), StageId("tiny", "evaluate")]
    train = result.own_stages()["train"]
    assert isinstance(train, StageResult)
    assert train.how == "built"
    assert isinstance(train.path, Path)
    assert train.path.parent == store.root / "objects"
    assert isinstance(train.realisation, Realisation)
    assert train.realisation.metrics.keys() == {"loss"}
    again = modelbuild.build(recipe.parent)
    assert [stage.how for stage in again.stages.values()] == ["valid", "valid"]


def test_the_store_can_be_named(
    recipe: Path, store: Store, tmp_path: Path, interpreter_object: Path
) -> None:
    other = tmp_path / "other"
    share_interpreter(other, interpreter_object)
    stages = modelbuild.build(recipe, store=other).own_stages()
    assert stages["train"].path is not None
    assert stages["train"].path.is_relative_to(other)
    assert modelbuild.build(recipe, dry_run=True).own_stages()["train"].how == "would build"


def test_an_observer_is_told_how_it_goes_on(tiny: Tiny, recipe: Path) -> None:
    class Told(Silent):
        def __init__(self) -> None:
            self.heard: list[str] = []
            self.lines: list[Callable[[], str]] = []

        def message(self, text: str) -> None:
            self.heard.append(text)

        def stage_started(
            self, identity: StageId, index: int, count: int, last_line: Callable[[], str]
        ) -> None:
            self.heard.append(f"{identity} {index}/{count}")
            self.lines.append(last_line)

        def stage_finished(self, identity: StageId, realisation: Realisation) -> None:
            self.heard.append(f"{identity} {realisation.name}")

    told = Told()
    modelbuild.build(recipe, observer=told)
    assert "locked tiny: not locked yet" in told.heard
    assert told.lines[0]() == "training on 3"
    assert [each for each in told.heard if re.match(r"tiny:\w+ ", each)] == [
        "tiny:train 1/2",
        "tiny:train tiny:train",
        "tiny:evaluate 2/2",
        "tiny:evaluate tiny:evaluate",
    ]


def test_a_failing_stage_is_raised(tiny: Tiny, recipe: Path) -> None:
    tiny.write("train.py", "raise SystemExit('no good')\n")
    with pytest.raises(StageFailedError) as caught:
        modelbuild.build(recipe)
    assert caught.value.exit_code == 6
    assert "no good" in str(caught.value)


def test_wrong_arguments_are_raised(tiny: Tiny, recipe: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe at"):
        modelbuild.build(tiny.root / "nowhere.toml")
    with pytest.raises(UsageError, match="there is no such value to set"):
        modelbuild.build(recipe, settings=["params.rate=1"])
    tiny.replace("recipe.toml", "schema = 1", "schema = 2")
    with pytest.raises(InvalidInputError):
        modelbuild.lock(recipe)


def test_an_unknown_isolation_is_raised_as_an_error_of_ours(recipe: Path) -> None:
    with pytest.raises(UsageError):
        modelbuild.build(recipe, isolation="some")


def test_verifying_reports_what_does_not_hold(tiny: Tiny, recipe: Path) -> None:
    path = modelbuild.build(recipe).own_stages()["train"].path
    assert path is not None
    report = modelbuild.verify(recipe)
    assert isinstance(report, VerifyReport)
    assert (report.problems, report.exit_code) == ([], 0)
    assert report.recipes["tiny"].stages["train"].claim == "holds"
    (path / "model.json").chmod(0o600)
    (path / "model.json").write_text("flipped")
    broken = modelbuild.verify(folder=tiny.root)
    assert broken.recipes["tiny"].stages["train"].store == "corrupt"
    assert broken.recipes["tiny"].stages["evaluate"].store == "intact"
    (problem,) = broken.problems
    assert isinstance(problem, ModelbuildError)
    assert broken.exit_code == 5


def test_a_rebuild_is_compared(recipe: Path) -> None:
    modelbuild.build(recipe)
    verdict = modelbuild.verify(recipe, rebuild=True).recipes["tiny"].stages["train"]
    assert verdict.rebuild is not None
    assert (verdict.rebuild.agreement, verdict.rebuild.against) == ("identical", "store")


def test_importing_the_library_imports_next_to_nothing_of_it() -> None:
    program = (
        "import sys, modelbuild; print([m for m in sys.modules if m.startswith('modelbuild.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert set(eval(done.stdout)) <= {"modelbuild.build", "modelbuild.verify"}
