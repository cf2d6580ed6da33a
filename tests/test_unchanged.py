"""The answer of a build with nothing to do is kept until anything that decided it moves."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from conftest import Tiny, how

from modelbuild.build.unchanged import TRUSTED_AFTER_NS, Decided, recall, remember
from modelbuild.store.store import Store


@pytest.fixture
def settled(tiny: Tiny, store: Store) -> Tiny:
    """A workspace whose build is answered from memory."""
    tiny.replace("recipe.toml", 'path = "numbers.txt"', 'path = "numbers"')
    tiny.replace("train.py", "open(sys.argv[1])", "open(sys.argv[1] + '/a')")
    tiny.write("numbers/a", "1\n2\n3\n")
    tiny.build()
    time.sleep(TRUSTED_AFTER_NS / 1e9 + 0.1)
    tiny.build()
    assert len(list((store.root / "unchanged").iterdir())) == 1
    return tiny


def test_the_same_answer_comes_from_memory(settled: Tiny, store: Store) -> None:
    first = settled.run("build", "--json")
    (store.root / "realisations").rename(store.root / "hidden")
    assert settled.run("build", "--json") == first
    shutil.rmtree(store.root / "unchanged")
    assert how(settled.build())["train"] == "built"


@pytest.mark.parametrize("path", ["train.py", "recipe.toml"])
def test_an_edit_with_its_times_put_back_is_noticed(settled: Tiny, path: str) -> None:
    status = (settled.root / path).stat()
    settled.replace(path, "sum(numbers)" if path == "train.py" else "lr = 0.5", "0.25")
    os.utime(settled.root / path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if path == "recipe.toml":
        assert settled.run("build").code == 3  # a number where a key was
    else:
        assert how(settled.build())["train"] == "built"


def test_a_new_file_that_the_code_glob_takes_in_is_noticed(settled: Tiny, store: Store) -> None:
    settled.write("new.py", "")
    settled.build()
    assert "new.py" in (settled.root / "model.lock").read_text()


def test_new_data_in_a_folder_is_noticed(settled: Tiny) -> None:
    settled.write("numbers/b", "4\n")
    assert settled.run("build").code == 5


def test_a_removed_output_is_noticed(settled: Tiny) -> None:
    output = Path(settled.build()["train"]["path"])
    output.chmod(0o755)
    shutil.rmtree(output)
    assert how(settled.build())["train"] == "built"


def test_a_removed_link_is_made_again(settled: Tiny) -> None:
    (settled.root / "result-tiny").unlink()
    settled.build()
    assert (settled.root / "result-tiny").is_symlink()


def test_other_options_are_another_question(settled: Tiny) -> None:
    assert settled.run("build", "--locked").code == 0
    assert settled.run("build", "--isolation", "none", "--json").json["stages"]["train"]["how"]


def test_a_file_that_changed_just_now_is_not_trusted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    decided = Decided(paths=[str(file)], folders={})
    remember(str(tmp_path), ["question"], decided, {"out": "answer"}, since=time.time_ns())
    assert recall(str(tmp_path), ["question"]) is None


def test_what_is_kept_and_damaged_is_no_answer(settled: Tiny, store: Store) -> None:
    (kept,) = (store.root / "unchanged").iterdir()
    for content in (b"", b"[]", b"{}", kept.read_bytes()[:-20]):
        kept.write_bytes(content)
        assert how(settled.build()) == {"train": "valid", "evaluate": "valid"}
