"""What a stage records is kept beside its log; whatever else it does there breaks nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import Tiny

from modelbuild.build import trace
from modelbuild.build.trace import ask, keep
from modelbuild.store.store import Store

PLACE = "/trace".join(("__import__('os').environ.get('MODELBUILD_ROOT', '/build') + '", "/'"))
levels = pytest.mark.parametrize("isolation", ["full", "none"])


def record(tiny: Tiny, code: str) -> None:
    """Have the training stage do something in its trace folder, `place`."""
    script = (tiny.root / "train.py").read_text()
    tiny.write("train.py", f"place = {PLACE}\n{code}\n{script}")


def realisation(store: Store, stage: str = "train") -> dict:
    records = [
        json.loads(path.read_bytes())["record"]
        for path in (store.root / "realisations").glob("*/*.json")
    ]
    (found,) = [each for each in records if each["name"] == f"tiny:{stage}"]
    return found


@levels
def test_a_stage_reads_what_to_record_and_what_it_recorded_is_kept_beside_its_log(
    tiny: Tiny, store: Store, isolation: str
) -> None:
    record(
        tiny,
        "print('asked for', open(place + 'request.json').read())\n"
        "open(place + 'steps-0.bin', 'wb').write(b'steps')\n"
        "open(place + 'notes-0.1.txt', 'w').write('the script turned it off\\n')",
    )
    tiny.build("--isolation", isolation)
    found = realisation(store)
    assert found["trace"] == found["log"].replace(".log", ".trace")
    folder = store.root / found["trace"]
    assert sorted(os.listdir(folder)) == ["notes-0.1.txt", "steps-0.bin"]
    assert (folder / "steps-0.bin").read_bytes() == b"steps"
    assert "the script turned it off" in found["notes"]
    assert 'asked for {"every": 1}' in (store.root / found["log"]).read_text()
    assert realisation(store, "evaluate")["trace"] is None


def test_notes_are_shown_by_build(tiny: Tiny) -> None:
    record(tiny, "open(place + 'notes-0.txt', 'w').write('the script did it')")
    assert "\n               note: the script did it\n" in tiny.run("build").err


def test_runs_are_numbered_one_by_one_beside_their_traces(tiny: Tiny, store: Store) -> None:
    record(tiny, "open(place + 'steps-0.bin', 'wb').write(b'steps')")
    tiny.build()
    tiny.run("verify", "--rebuild")
    names = sorted(os.listdir(next((store.root / "logs").glob("*/tiny/train"))))
    assert names == ["000001.log", "000001.trace", "000002.log", "000002.trace"]
    assert tiny.run("log", "--path", "tiny:train").out.endswith("/train/000002.log\n")


JUNK = {
    "nothing": "import shutil; shutil.rmtree(place, ignore_errors=True)",
    "no right to read it": "import os; os.chmod(place, 0)",
    "folders": "import os; os.makedirs(place + 'steps-0.bin'); os.chmod(place + 'steps-0.bin', 0)",
    "a link and a fifo": (
        "import os; os.symlink('/etc/hosts', place + 'notes-0.txt'); os.mkfifo(place + 'a')"
    ),
    "bytes that are no text": (
        "open(place + 'notes-0.txt', 'wb').write(b'\\xff\\x00\\x1b[2J\\n' * 100000)"
    ),
}


@pytest.mark.parametrize("left", JUNK)
def test_whatever_a_stage_does_to_its_trace_folder_breaks_no_build(
    tiny: Tiny, store: Store, left: str
) -> None:
    record(tiny, JUNK[left])
    tiny.build("--isolation", "none" if left == "nothing" else "full")
    for note in realisation(store)["notes"]:
        assert note.isprintable()
        assert len(note) <= trace.NOTE_LENGTH
    assert not list((store.root / "tmp").glob("build-*"))


def test_what_is_not_ours_is_left_behind_with_a_note(tmp_path: Path) -> None:
    ask(tmp_path / "trace", {"every": 1})
    for name in ("steps-0.bin", "steps-x.bin", "model.pt"):
        (tmp_path / "trace" / name).touch()
    (tmp_path / "trace" / "steps-0.1.bin").symlink_to("/etc/passwd")
    os.link(tmp_path / "trace" / "model.pt", tmp_path / "trace" / "steps-0.2.bin")
    kept = keep(tmp_path / "trace", tmp_path / "000001.log")
    assert kept.folder == tmp_path / "000001.trace"
    assert os.listdir(kept.folder) == ["steps-0.bin"]
    assert kept.notes == (
        "4 things in its trace folder are not kept: too large, or not made by us",
    )


def test_notes_are_bounded_and_each_is_said_once(tmp_path: Path) -> None:
    ask(tmp_path / "trace", {"every": 1})
    lines = "".join(f"note {number}\n" for number in range(30))
    for name in ("notes-0.txt", "notes-0.1.txt"):
        (tmp_path / "trace" / name).write_text(lines)
    kept = keep(tmp_path / "trace", tmp_path / "000001.log")
    assert kept.notes[0] == "note 0"
    assert kept.notes[-1] == "and 10 more notes"
    assert len(kept.notes) == trace.MOST_NOTES + 1


def test_what_all_ranks_say_is_said_once_and_else_which_do(tmp_path: Path) -> None:
    ask(tmp_path / "trace", {"every": 1})
    said = {0: "both", 1: "both\none\n1 and 2", 2: "both\n1 and 2"}
    for rank, lines in said.items():
        text = "".join(f"{line}, in rank {rank} of 3\n" for line in lines.split("\n"))
        (tmp_path / "trace" / f"notes-0.r{rank}.txt").write_text(text)
    (tmp_path / "trace" / "notes-0.txt").write_text("torchrun itself\n")
    assert keep(tmp_path / "trace", tmp_path / "000001.log").notes == (
        "both",
        "one, in rank 1 of 3",
        "1 and 2, in ranks 1, 2 of 3",
        "torchrun itself",
    )


def test_too_much_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "MOST_BYTES", 10)
    ask(tmp_path / "trace", {"every": 1})
    (tmp_path / "trace" / "steps-0.bin").write_bytes(bytes(11))
    kept = keep(tmp_path / "trace", tmp_path / "000001.log")
    assert kept.folder is None
    assert kept.notes == ("1 thing in its trace folder is not kept: too large, or not made by us",)


def test_a_stride_in_the_recipe_is_asked_for_and_builds_nothing_again(
    tiny: Tiny, store: Store
) -> None:
    record(tiny, "print(open(place + 'request.json').read())")
    tiny.replace("recipe.toml", "seed = 7", "seed = 7\ntrace-every = 50")
    tiny.build()
    assert '{"every": 50}' in (store.root / realisation(store)["log"]).read_text()
    tiny.replace("recipe.toml", "trace-every = 50", "trace-every = 0")
    assert tiny.build()["train"]["how"] == "valid"
