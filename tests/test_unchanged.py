"""The answer of a build with nothing to do is kept until anything that decided it moves."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Tiny, how, make_tiny, share_interpreter
from test_build import wait_for

from modelbuild.build.unchanged import Decided, recall, remember
from modelbuild.store.store import Store, remove_tree


@pytest.fixture(scope="module")
def built(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    interpreter_object: Path,
) -> Iterator[list[Tiny]]:
    """A workspace for each test: the seconds until files are trusted pass for all at once."""
    workspaces = []
    for _ in range(sum("settled" in item.fixturenames for item in request.session.items)):
        folder = tmp_path_factory.mktemp("built")
        share_interpreter(folder / "store", interpreter_object)
        tiny = make_tiny(folder / "workspace", MODELBUILD_STORE=str(folder / "store"))
        tiny.replace("recipe.toml", 'path = "numbers.txt"', 'path = "numbers"')
        tiny.replace("train.py", "open(sys.argv[1])", "open(sys.argv[1] + '/a')")
        tiny.write("numbers/a", "1\n2\n3\n")
        tiny.build()
        workspaces.append(tiny)
    stores = [store_of(tiny) for tiny in workspaces]
    yield workspaces
    for store in stores:
        remove_tree(store.root)


def store_of(tiny: Tiny) -> Store:
    return Store(Path(tiny.environment["MODELBUILD_STORE"]))


@pytest.fixture
def settled(built: list[Tiny]) -> Tiny:
    """A workspace whose build is answered from memory."""
    tiny = built.pop()

    def is_kept() -> bool:
        tiny.build()
        return (store_of(tiny).root / "unchanged").exists()

    wait_for(is_kept)
    return tiny


@pytest.fixture
def store(settled: Tiny) -> Store:
    return store_of(settled)


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


def test_other_options_are_another_question(settled: Tiny, store: Store) -> None:
    for other in (["--locked"], ["--isolation", "none"]):
        assert how(settled.build(*other)) == {"train": "valid", "evaluate": "valid"}
    (store.root / "realisations").rename(store.root / "hidden")
    assert how(settled.build()) == {"train": "valid", "evaluate": "valid"}
    assert how(settled.build("--dry-run")) == {"train": "would build", "evaluate": "would build"}


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
