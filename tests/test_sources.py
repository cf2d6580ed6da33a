"""Where data comes from: pinned, found again, and every way in which that goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import mmap
import os
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import pytest

from modelbuild.errors import DigestMismatchError, InvalidInputError, ModelbuildError
from modelbuild.sources import urls
from modelbuild.sources.data import Resolved, check_unchanged, realise, resolve
from modelbuild.sources.locations import read_locations
from modelbuild.sources.source import SourceAbsentError, SourceContext
from modelbuild.spec.recipe import Data, LocationData, PackageData, PathData, UrlData
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.store.stat_cache import StatCache
from modelbuild.store.store import Store, remove_tree
from modelbuild.store.tree import scan_file, scan_tree

RECIPE = """\
schema = 1
[model]
name = "x"
[environment]
python = "3.11"
packages = []
[code]
include = ["*.py"]
[data.train]
path = "data/train.csv"
[stages.train]
run = ["python", "train.py", "{data.train}"]
"""
WHERE = "recipes/x/recipe.toml:9: data 'train'"


@dataclass
class Place:
    """A workspace with the recipe recipes/x/recipe.toml, a store, and a user."""

    root: Path
    said: list[str] = field(default_factory=list)
    locations: dict[str, Path] = field(default_factory=dict)
    wheel: Path | None = None

    @property
    def recipe_folder(self) -> Path:
        return self.root / "workspace" / "recipes" / "x"

    @property
    def context(self) -> SourceContext:
        store = Store(self.root / "store")
        return SourceContext(
            workspace=self.root / "workspace",
            recipe=parse_recipe(RECIPE.encode(), PurePosixPath("recipes/x/recipe.toml")),
            store=store,
            # An hour ahead: what was just written counts as old.
            cache=StatCache(store.root / "stat-cache", clock=lambda: time.time_ns() + 3600 * 10**9),
            locations=self.locations,
            unpacked_wheel=self._unpacked_wheel,
            on_progress=self.said.append,
        )

    def _unpacked_wheel(self, package: str) -> Path:
        assert package == "some-package"
        assert self.wheel is not None, "the network was needed"
        return self.wheel

    def write(self, name: str, content: str = "a,b\n1,2\n") -> Path:
        path = self.recipe_folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    def resolve(self, data: Data) -> Resolved:
        return resolve("train", data, self.context)

    def realise(self, data: Data, resolved: Resolved, *, fetch: bool = True) -> Resolved:
        return realise("train", data, resolved.locked, self.context, fetch=fetch)

    def check(self, resolved: Resolved, *, paranoid: bool = False) -> None:
        check_unchanged("train", resolved, self.context, paranoid=paranoid)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    place.recipe_folder.mkdir(parents=True)
    yield place
    remove_tree(tmp_path / "store")


def message(act: Callable[[], object], kind: type[ModelbuildError]) -> str:
    with pytest.raises(ModelbuildError) as error:
        act()
    assert type(error.value) is kind, error.value
    return str(error.value)


# path


def test_a_file_is_locked_as_the_tree_that_holds_just_it(place: Place) -> None:
    file = place.write("data/train.csv")
    resolved = place.resolve(PathData(path="data/train.csv"))
    locked = resolved.locked
    assert (locked.digest, locked.file) == (scan_file(file).digest, "train.csv")
    assert (locked.files, locked.bytes) == (1, 8)
    assert (locked.rows, locked.columns) == (1, ("a", "b"))
    assert (resolved.path, resolved.in_place) == (file, True)
    assert place.realise(PathData(path="data/train.csv"), resolved).path == file


def test_a_folder_is_used_in_place(place: Place) -> None:
    place.write("data/one.csv")
    place.write("data/deep/two.csv")
    resolved = place.resolve(PathData(path="data"))
    assert resolved.locked.digest == scan_tree(place.recipe_folder / "data").digest
    assert (resolved.locked.file, resolved.locked.files, resolved.locked.rows) == (None, 2, None)
    assert (resolved.path, resolved.in_place) == (place.recipe_folder / "data", True)
    assert not (place.root / "store" / "objects").exists()


def test_data_may_lie_elsewhere_in_the_workspace(place: Place) -> None:
    shared = place.root / "workspace" / "shared.csv"
    shared.write_text("a\n")
    assert place.resolve(PathData(path="../../shared.csv")).path == shared
    (place.recipe_folder / "here.csv").symlink_to(shared)
    resolved = place.resolve(PathData(path="here.csv"))
    assert resolved.locked.file == "here.csv"
    assert resolved.locked.bytes == 2


@pytest.mark.parametrize("path", ["data/trian.csv", "dta/train.csv", "data/train.csv/x"])
def test_missing_data_names_the_nearest(place: Place, path: str) -> None:
    place.write("data/train.csv")
    near = "data" if path.startswith("dta") else "data/train.csv"
    expected = f"{WHERE} does not exist\n  wanted:  {path}\n  nearest: {near}"
    assert message(lambda: place.resolve(PathData(path=path)), InvalidInputError) == expected


def test_data_that_is_gone_after_locking_is_absent_here(place: Place) -> None:
    file = place.write("data/train.csv")
    data = PathData(path="data/train.csv")
    resolved = place.resolve(data)
    file.unlink()
    assert message(lambda: place.realise(data, resolved), SourceAbsentError) == (
        f"{WHERE} does not exist\n  wanted: data/train.csv"
    )


@pytest.mark.parametrize("path", ["link.csv", "folder/secret.csv", "link*.csv", "folder/*.csv"])
def test_a_link_that_leaves_the_workspace_is_refused(place: Place, path: str) -> None:
    outside = place.root / "elsewhere"
    outside.mkdir()
    (outside / "secret.csv").write_text("secret")
    (place.recipe_folder / "link.csv").symlink_to(outside / "secret.csv")
    (place.recipe_folder / "folder").symlink_to(outside)
    found = message(lambda: place.resolve(PathData(path=path)), InvalidInputError)
    if path == "link*.csv":
        assert found == (
            f"{WHERE} matches no file\n"
            "  wanted: link*.csv\n"
            "  found:  only links, which a glob does not follow"
        )
        return
    named = path.removesuffix("/*.csv")
    leads = outside if named == "folder" else outside / "secret.csv"
    assert found == (
        f"{WHERE} leaves the workspace\n"
        f"  path:     {named}\n"
        f"  leads to: {leads}\n"
        'Data that lives elsewhere is named, and each user maps the name: location = "NAME"'
    )


def test_a_link_out_of_a_data_folder_is_refused(place: Place) -> None:
    place.write("data/one.csv")
    (place.recipe_folder / "data" / "link").symlink_to("/etc/passwd")
    found = message(lambda: place.resolve(PathData(path="data")), ModelbuildError)
    assert found.startswith(f"a link leads out of its folder: {place.recipe_folder}/data/link\n")


def test_the_workspace_itself_is_no_data(place: Place) -> None:
    found = message(lambda: place.resolve(PathData(path="../..")), InvalidInputError)
    assert found == (
        f"{WHERE} is the whole workspace\n"
        "  wanted: a folder without model.lock, which holds the data's digest\n"
        "Put the data into a folder of its own."
    )


def test_a_fifo_is_no_data(place: Place) -> None:
    os.mkfifo(place.recipe_folder / "pipe")
    found = message(lambda: place.resolve(PathData(path="pipe")), ModelbuildError)
    assert found.startswith("neither a file, a folder nor a link: ")


def test_changed_data_is_a_mismatch_that_names_the_files(place: Place) -> None:
    for number in range(9):
        place.write(f"data/part-{number}.csv")
    data = PathData(path="data")
    resolved = place.resolve(data)
    place.write("data/part-3.csv", "edited")
    (place.recipe_folder / "data" / "part-5.csv").unlink()
    now = scan_tree(place.recipe_folder / "data").digest
    for _ in range(2):
        assert message(lambda: place.realise(data, resolved), DigestMismatchError) == (
            "digest mismatch in data 'train' of recipes/x/recipe.toml\n"
            f"  locked: {resolved.locked.digest}\n"
            f"  found:  {now}  (2 files changed: part-3.csv, part-5.csv)\n"
            "If the change is intended: modelbuild lock --update train"
        )
    for number in (0, 1, 2, 4):
        place.write(f"data/part-{number}.csv", "edited")
    found = message(lambda: place.realise(data, resolved), DigestMismatchError)
    assert "(6 files changed: part-0.csv, part-1.csv, part-2.csv, part-3.csv, " in found
    assert "part-4.csv, ...)" in found


def test_a_mismatch_without_knowledge_of_the_files_is_shown_all_the_same(place: Place) -> None:
    place.write("data.csv")
    data = PathData(path="data.csv")
    resolved = place.resolve(data)
    remove_tree(place.root / "store")
    file = place.write("data.csv", "edited")
    assert message(lambda: place.realise(data, resolved), DigestMismatchError) == (
        "digest mismatch in data 'train' of recipes/x/recipe.toml\n"
        f"  locked: {resolved.locked.digest}\n"
        f"  found:  {scan_file(file).digest}\n"
        "If the change is intended: modelbuild lock --update train"
    )


# globs


def matched(place: Place, pattern: str) -> list[str]:
    resolved = place.resolve(PathData(path=pattern))
    assert resolved.path.parent == place.root / "store" / "objects"
    assert not resolved.in_place
    tree = scan_tree(resolved.path)
    assert (tree.digest, tree.files) == (resolved.locked.digest, resolved.locked.files)
    return [os.fsdecode(entry.path) for entry in tree.entries]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/*.csv", ["a.csv", "b.csv"]),
        ("data/**/*.csv", ["a.csv", "b.csv", "deep/er/d.csv", "deep/c.csv"]),
        ("data/**/**/*.csv", ["a.csv", "b.csv", "deep/er/d.csv", "deep/c.csv"]),
        ("data/**", ["a.csv", "b.csv", "deep/c.csv", "deep/er/d.csv", "x.txt"]),
        ("data/[ab].csv", ["a.csv", "b.csv"]),
        ("data/?.csv", ["a.csv", "b.csv"]),
        ("data/*/c.csv", ["deep/c.csv"]),
        ("data/deep/**/d.csv", ["er/d.csv"]),
        ("**/er/*", ["data/deep/er/d.csv"]),
        ("./data//*.txt", ["x.txt"]),
        ("data/.h*/*", [".hidden/e.csv"]),
        ("data/.*", [".secret.csv"]),
        ("../x/data/*.txt", ["x.txt"]),
    ],
)
def test_globs_match_what_they_say(place: Place, pattern: str, expected: list[str]) -> None:
    for name in ("a.csv", "b.csv", "x.txt", "deep/c.csv", "deep/er/d.csv", ".hidden/e.csv"):
        place.write(f"data/{name}", name)
    place.write("data/.secret.csv")
    assert sorted(matched(place, pattern)) == sorted(expected)


def test_globs_do_not_follow_links_nor_see_the_store_or_the_lock(place: Place) -> None:
    place.write("data/a.csv")
    place.write("other/b.csv")
    place.write("data/model.lock")
    (place.recipe_folder / "data" / "folder").symlink_to("../other")
    (place.recipe_folder / "data" / "file.csv").symlink_to("../other/b.csv")
    (place.recipe_folder / "data" / "self").symlink_to("self")
    assert matched(place, "data/a*") == ["a.csv"]
    (place.recipe_folder / "data" / "result-x").symlink_to(place.root / "store" / "objects")
    place.said.clear()
    assert matched(place, "data/**") == ["a.csv"]
    assert place.said == ["data 'train': links are not followed: file.csv, self"]


def test_a_store_inside_the_workspace_is_passed_over(place: Place) -> None:
    place.write("data/a.csv")
    (place.recipe_folder / "store").symlink_to(place.root / "store")
    store = Store(place.recipe_folder / "data" / "my-store")
    context = replace(place.context, store=store)
    for _ in range(2):
        assert resolve("train", PathData(path="data/**"), context).locked.files == 1
    remove_tree(store.root)


def test_odd_names_are_matched_and_copied(place: Place) -> None:
    (place.recipe_folder / "data").mkdir()
    for name in (b"with space.csv", b"new\nline.csv", b"\xff.csv"):
        (place.recipe_folder / "data" / os.fsdecode(name)).write_bytes(name)
    assert len(matched(place, "data/*.csv")) == 3


def test_a_glob_without_matches_is_refused(place: Place) -> None:
    found = message(lambda: place.resolve(PathData(path="data/*.csv")), InvalidInputError)
    assert found == f"{WHERE} matches no file\n  wanted: data/*.csv\n  found:  no folder data"
    place.write("data/a.txt")
    found = message(lambda: place.resolve(PathData(path="data/*.csv")), InvalidInputError)
    assert found == f"{WHERE} matches no file\n  wanted: data/*.csv"


def test_a_glob_is_hashed_in_place_and_copied_once(place: Place) -> None:
    place.write("data/a.csv")
    place.write("data/b.csv")
    place.write("data/c.txt")
    data = PathData(path="data/*.csv")
    resolved = place.resolve(data)
    before = resolved.path.stat()
    place.write("data/c.txt", "not matched")
    again = place.realise(data, resolved)
    assert (again.path, again.path.stat()) == (resolved.path, before)
    remove_tree(resolved.path)
    assert place.realise(data, resolved).path.exists()
    place.write("data/b.csv", "edited")
    found = message(lambda: place.realise(data, resolved), DigestMismatchError)
    assert "  (1 file changed: b.csv)\n" in found
    for name in ("a", "b"):
        (place.recipe_folder / "data" / f"{name}.csv").unlink()
    message(lambda: place.realise(data, resolved), SourceAbsentError)


# data in place, after a stage


def test_data_that_stayed_as_it_was_passes_the_check(place: Place) -> None:
    place.write("data/a.csv")
    for data in (PathData(path="data"), PathData(path="data/a.csv"), PathData(path="data/*")):
        resolved = place.resolve(data)
        place.check(resolved)
        place.check(resolved, paranoid=True)


def test_data_that_changed_during_a_stage_is_a_mismatch(place: Place) -> None:
    file = place.write("data/a.csv")
    resolved = place.resolve(PathData(path="data"))
    file.write_text("edited")
    assert message(lambda: place.check(resolved), DigestMismatchError) == (
        "data 'train' of recipes/x/recipe.toml changed while the stage ran\n"
        f"  locked: {resolved.locked.digest}\n"
        f"  found:  {scan_tree(file.parent).digest}  (1 file changed: a.csv)\n"
        "Build again when nothing writes to the data."
    )


def test_data_that_changed_and_was_put_back_is_a_mismatch(place: Place) -> None:
    file = place.write("a.csv")
    resolved = place.resolve(PathData(path="a.csv"))
    before = file.stat()
    file.write_text("edited!!")
    file.write_text("a,b\n1,2\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert message(lambda: place.check(resolved), DigestMismatchError) == (
        "data 'train' of recipes/x/recipe.toml changed while the stage ran\n"
        f"  found: the same contents, but something was written below {file}\n"
        "Build again when nothing writes to the data."
    )


def test_data_that_went_away_during_a_stage_is_a_mismatch(place: Place) -> None:
    file = place.write("a.csv")
    resolved = place.resolve(PathData(path="a.csv"))
    file.unlink()
    assert message(lambda: place.check(resolved), DigestMismatchError) == (
        "data 'train' of recipes/x/recipe.toml changed while the stage ran\n"
        f"  missing: {file}\n"
        "Build again when nothing writes to the data."
    )


def test_a_paranoid_check_reads_the_contents_again(place: Place) -> None:
    """A write to a page of a shared mapping that is dirty already moves no status."""
    file = place.write("data/a.csv")
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapping:
        mapping[0] = ord("x")
        resolved = place.resolve(PathData(path="data"))
        place.check(resolved, paranoid=True)
        mapping[0] = ord("y")
        found = message(lambda: place.check(resolved, paranoid=True), DigestMismatchError)
    assert f"  found:  {scan_tree(file.parent).digest}\n" in found


# location


def test_a_location_is_used_in_place(place: Place) -> None:
    folder = place.root / "imagenet"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.csv").write_text("a\n1\n")
    place.locations["imagenet"] = folder
    whole = place.resolve(LocationData(location="imagenet"))
    assert (whole.path, whole.in_place, whole.locked.files) == (folder, True, 1)
    file = place.resolve(LocationData(location="imagenet", path="train/a.csv"))
    assert (file.path, file.locked.file, file.locked.rows) == (folder / "train/a.csv", "a.csv", 1)
    # Where it is does not count.
    folder.rename(place.root / "moved")
    place.locations["imagenet"] = place.root / "moved"
    assert place.realise(LocationData(location="imagenet"), whole).locked == whole.locked


def test_a_location_that_is_not_mapped_shows_the_lines_to_write(place: Place) -> None:
    place.locations["imagenet"] = place.root
    data = LocationData(location="image-net")
    assert message(lambda: place.resolve(data), SourceAbsentError) == (
        f"{WHERE} is at a location that is not mapped on this machine\n"
        "  location: image-net\n"
        "  nearest:  imagenet\n"
        "To map it, write these lines into modelbuild/config.toml in $XDG_CONFIG_HOME or "
        "~/.config:\n"
        "  [locations]\n"
        '  image-net = "/path/to/image-net"\n'
        "or set MODELBUILD_LOCATION_IMAGE_NET=/path/to/image-net"
    )


def test_a_location_that_is_not_there_is_absent(place: Place) -> None:
    place.locations["disk"] = place.root / "disk"
    data = LocationData(location="disk")
    assert message(lambda: place.resolve(data), SourceAbsentError) == (
        f"{WHERE} is not on this machine\n"
        "  location:  disk\n"
        f"  mapped to: {place.root}/disk\n"
        "There is nothing at that path. Is it mounted?"
    )


def test_a_path_that_is_not_in_its_location_names_the_nearest(place: Place) -> None:
    (place.root / "train.csv").touch()
    place.locations["disk"] = place.root
    data = LocationData(location="disk", path="trian.csv")
    assert message(lambda: place.resolve(data), InvalidInputError) == (
        f"{WHERE} is not in its location\n  wanted:  {place.root}/trian.csv\n  nearest: train.csv"
    )
    data = LocationData(location="disk", path="../x")
    assert message(lambda: place.resolve(data), InvalidInputError) == (
        f"{WHERE} leaves its location\n  found: ../x"
    )


def test_a_file_of_a_location_that_is_named_as_a_folder_is_said(place: Place) -> None:
    (place.root / "train").mkdir()
    (place.root / "train" / "a.csv").write_text("a\n1\n")
    place.locations["disk"] = place.root
    file = LocationData(location="disk", path="train/a.csv", folder=True)
    assert message(lambda: place.resolve(file), InvalidInputError) == (
        f"{WHERE} is not a folder\n"
        f"  wanted: the folder {place.root}/train/a.csv\n"
        "  found:  a file; it is named with the key 'file'"
    )
    folder = LocationData(location="disk", path="train", folder=False)
    assert message(lambda: place.resolve(folder), InvalidInputError) == (
        f"{WHERE} is not a file\n"
        f"  wanted: the file {place.root}/train\n"
        "  found:  a folder; it is named with the key 'folder'"
    )
    right = place.resolve(LocationData(location="disk", path="train", folder=True))
    assert (right.locked.file, right.locked.files) == (None, 1)


def config(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "modelbuild").mkdir(exist_ok=True)
    (tmp_path / "modelbuild" / "config.toml").write_text(text)
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def test_locations_come_from_the_configuration_and_from_variables(
    tmp_path: Path, place: Place
) -> None:
    environ = config(tmp_path, '[locations]\nimage-net = "/data/imagenet"\nhome = "~/x"\n')
    assert read_locations(environ) == {
        "image-net": Path("/data/imagenet"),
        "home": Path("~/x").expanduser(),
    }
    environ["MODELBUILD_LOCATION_IMAGE_NET"] = str(place.recipe_folder)
    place.locations.update(read_locations(environ))
    place.write("a.csv")
    found = place.resolve(LocationData(location="image-net"))
    assert found.path == place.recipe_folder


def test_without_a_configuration_there_are_no_locations(tmp_path: Path) -> None:
    assert read_locations({"HOME": str(tmp_path)}) == {}
    assert read_locations({"XDG_CONFIG_HOME": str(tmp_path)}) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("locations = 1", " 'locations' is not a table\n  wanted: [locations], then lines such as"),
        ("[locations]\nx = 1", " location 'x' is not an absolute path\n  wanted: a path that"),
        ('[locations]\nx = "rel"', " location 'x' is not an absolute path\n  wanted: a path that"),
    ],
)
def test_a_wrong_configuration_is_one_message(tmp_path: Path, text: str, expected: str) -> None:
    environ = config(tmp_path, text)
    found = message(lambda: read_locations(environ), ModelbuildError)
    assert found.startswith(f"{tmp_path}/modelbuild/config.toml:{expected}")


@pytest.mark.parametrize("content", [b"[locations", b"\xff"])
def test_a_configuration_that_is_not_toml_is_one_message(tmp_path: Path, content: bytes) -> None:
    environ = config(tmp_path, "")
    (tmp_path / "modelbuild" / "config.toml").write_bytes(content)
    found = message(lambda: read_locations(environ), ModelbuildError)
    assert found.startswith(f"{tmp_path}/modelbuild/config.toml is not TOML\n  found: ")


def test_a_variable_that_is_no_absolute_path_is_one_message() -> None:
    environ = {"MODELBUILD_LOCATION_X": "", "HOME": "/nowhere"}
    assert message(lambda: read_locations(environ), ModelbuildError) == (
        "MODELBUILD_LOCATION_X is not an absolute path\n"
        "  wanted: a path that begins with / or ~\n"
        "  found:  ''"
    )


# package


@pytest.fixture
def wheel(place: Place) -> Path:
    wheel = place.root / "wheel"
    (wheel / "some_package" / "data").mkdir(parents=True)
    (wheel / "some_package" / "data" / "digits.csv.gz").write_bytes(
        gzip.compress(b"a,b\n1,2\n3,4\n", mtime=0)
    )
    (wheel / "some_package-1.9.1.dist-info").mkdir()
    place.wheel = wheel
    return wheel


FILE = "some_package/data/digits.csv.gz"


def test_a_file_of_a_package_becomes_an_object_of_the_store(place: Place, wheel: Path) -> None:
    data = PackageData(package="some-package", path=FILE, folder=False)
    resolved = place.resolve(data)
    assert resolved.locked.resolved == f"some-package 1.9.1: {FILE}"
    assert resolved.locked.file == "digits.csv.gz"
    assert resolved.locked.rows == 2
    assert resolved.path.parent.parent == place.root / "store" / "objects"
    assert not resolved.path.stat().st_mode & 0o222
    # Once in the store, the wheel is not needed.
    place.wheel = None
    assert place.realise(data, resolved).path == resolved.path
    assert place.realise(data, resolved, fetch=False).path == resolved.path
    remove_tree(resolved.path.parent)
    assert message(lambda: place.realise(data, resolved, fetch=False), SourceAbsentError) == (
        "data 'train' of recipes/x/recipe.toml is not in the store"
    )
    place.wheel = wheel
    assert place.realise(data, resolved).path.read_bytes() == (wheel / FILE).read_bytes()


def test_a_folder_of_a_package_becomes_an_object_of_the_store(place: Place, wheel: Path) -> None:
    data = PackageData(package="some-package", path="some_package/data", folder=True)
    resolved = place.resolve(data)
    assert resolved.locked.digest == scan_tree(wheel / "some_package" / "data").digest
    assert (resolved.locked.file, resolved.locked.files) == (None, 1)


def test_a_file_that_is_not_in_the_wheel_names_the_nearest(place: Place, wheel: Path) -> None:
    data = PackageData(package="some-package", path="some_package/digits.csv.gz", folder=False)
    assert message(lambda: place.resolve(data), InvalidInputError) == (
        f"{WHERE} is not in the wheel of some-package\n"
        "  wanted:  the file some_package/digits.csv.gz\n"
        f"  nearest: {FILE}"
    )


def test_a_file_that_is_named_as_a_folder_is_said(place: Place, wheel: Path) -> None:
    data = PackageData(package="some-package", path=FILE, folder=True)
    assert message(lambda: place.resolve(data), InvalidInputError) == (
        f"{WHERE} is not in the wheel of some-package\n"
        f"  wanted: the folder {FILE}\n"
        "  found:  a file; it is named with the key 'file'"
    )


# url


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves what a test put into `server.answers`, by path."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path, Answer(b"", status=404))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.length is not None:
            self.send_header("Content-Length", str(answer.length))
        elif answer.length is None and answer.status == 200 and not answer.no_length:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *args: object) -> None:
        pass


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    no_length: bool = False


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


CSV = b"a,b\n1,2\n3,4\n"
SHA256 = hashlib.sha256(CSV).hexdigest()


def tar_gz(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"top/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def test_a_file_is_fetched_once(place: Place, server: Server) -> None:
    server.answers["/d/my%20data.csv?token=hush"] = Answer(CSV)
    data = UrlData(url=f"{server.root}/d/my data.csv?token=hush", sha256=SHA256)
    resolved = place.resolve(data)
    assert resolved.locked.resolved == f"sha256:{SHA256} (12 bytes)"
    assert (resolved.locked.file, resolved.locked.rows) == ("my data.csv", 2)
    assert resolved.path.read_bytes() == CSV
    assert place.said == [f"data 'train': fetching {server.root}/d/my data.csv?..."]
    server.asked.clear()
    assert place.realise(data, resolved).path == resolved.path
    assert place.realise(data, resolved, fetch=False).path == resolved.path
    assert server.asked == []
    remove_tree(resolved.path.parent)
    message(lambda: place.realise(data, resolved, fetch=False), SourceAbsentError)
    assert server.asked == []
    assert place.realise(data, resolved).path.read_bytes() == CSV
    assert len(server.asked) == 1


def test_an_archive_is_unpacked_unless_told_otherwise(place: Place, server: Server) -> None:
    server.answers["/a.tar.gz"] = server.answers["/plain"] = Answer(tar_gz(a=b"1", b=b"2"))
    packed = f"{server.root}/a.tar.gz"
    unpacked = place.resolve(UrlData(url=packed))
    assert (unpacked.locked.file, unpacked.locked.files) == (None, 2)
    assert (unpacked.path / "top" / "b").read_bytes() == b"2"
    assert place.resolve(UrlData(url=packed, unpack=False)).locked.file == "a.tar.gz"
    assert place.resolve(UrlData(url=f"{server.root}/plain")).locked.file == "plain"
    forced = place.resolve(UrlData(url=f"{server.root}/plain", unpack=True))
    assert forced.locked == unpacked.locked


def test_a_bad_archive_names_the_data(place: Place, server: Server) -> None:
    server.answers["/a.zip"] = Answer(b"<html>")
    found = message(lambda: place.resolve(UrlData(url=f"{server.root}/a.zip")), ModelbuildError)
    assert found.startswith(f"{WHERE}: a.zip can't be unpacked: it is damaged, or not an archive\n")
    assert list((place.root / "store" / "tmp").iterdir()) == []


def test_another_file_than_the_recipe_names_is_a_mismatch(place: Place, server: Server) -> None:
    server.answers["/a.csv"] = Answer(CSV)
    data = UrlData(url=f"{server.root}/a.csv", sha256="0" * 64)
    assert message(lambda: place.resolve(data), DigestMismatchError) == (
        f"{WHERE} is not the file that the recipe names\n"
        f"  url:    {server.root}/a.csv\n"
        f"  wanted: sha256:{'0' * 64}\n"
        f"  found:  sha256:{SHA256}\n"
        "If the change is intended, write the new 'sha256' into the recipe."
    )


def test_another_file_than_was_locked_is_a_mismatch(place: Place, server: Server) -> None:
    server.answers["/a.csv"] = Answer(CSV)
    data = UrlData(url=f"{server.root}/a.csv")
    resolved = place.resolve(data)
    remove_tree(resolved.path.parent)
    server.answers["/a.csv"] = Answer(CSV + b"5,6\n")
    assert message(lambda: place.realise(data, resolved), DigestMismatchError).startswith(
        "digest mismatch in data 'train' of recipes/x/recipe.toml\n"
        f"  locked: {resolved.locked.digest}\n"
    )


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_the_first_name_is_kept(
    place: Place, server: Server, status: int
) -> None:
    server.answers["/a.csv"] = Answer(status=status, headers={"Location": "/other"})
    server.answers["/other"] = Answer(CSV)
    assert place.resolve(UrlData(url=f"{server.root}/a.csv")).locked.file == "a.csv"


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Answer(status=404), "404 Not Found"),
        (Answer(status=500), "500 Internal Server Error"),
        (Answer(b"x" * 10, length=100), "a sudden end after 10 of 100 bytes"),
        (
            Answer(status=302, headers={"Location": "/a"}),
            "redirects that don't end at http or https",
        ),
        (Answer(status=302, headers={"Location": "ftp://h/a"}), "a redirect from http to ftp"),
        (
            Answer(status=302, headers={"Location": "file:///etc/passwd"}),
            "redirects that don't end at http or https",
        ),
        (
            Answer(
                b"5\r\nhello\r\n9\r\nwo",
                headers={"Transfer-Encoding": "chunked"},
                no_length=True,
            ),
            "a sudden end",
        ),
    ],
)
def test_what_cannot_be_fetched_is_absent_and_leaves_nothing(
    place: Place, server: Server, answer: Answer, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "chunked" in answer.headers.values():
        monkeypatch.setattr(Handler, "protocol_version", "HTTP/1.1")
        answer.headers["Connection"] = "close"
    server.answers["/a"] = answer
    assert message(lambda: place.resolve(UrlData(url=f"{server.root}/a")), SourceAbsentError) == (
        f"{WHERE} can't be fetched\n  url:   {server.root}/a\n  found: {found}"
    )
    assert list((place.root / "store" / "tmp").iterdir()) == []
    assert not (place.root / "store" / "objects").exists()


def test_no_connection_is_absent(place: Place) -> None:
    with socket.socket() as bound:  # a port that nobody listens at
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/a"
        assert message(lambda: place.resolve(UrlData(url=url)), SourceAbsentError) == (
            f"{WHERE} can't be fetched\n  url:   {url}\n  found: Connection refused"
        )


def test_a_silent_server_is_absent(
    place: Place, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setattr(urls, "_SILENCE_SECONDS", 0.2)
    release = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda self: release.wait(10))
    data = UrlData(url=f"{server.root}/a")
    found = message(lambda: place.resolve(data), SourceAbsentError)
    release.set()
    assert found.endswith("found: no answer in time")


@pytest.mark.parametrize("url", ["http://[::1/a", "http://h:port/a", "http://127.0.0.1:99999/a"])
def test_a_malformed_url_is_one_message(place: Place, url: str) -> None:
    message(lambda: place.resolve(UrlData(url=url)), SourceAbsentError)


def test_credentials_are_never_shown(place: Place, server: Server) -> None:
    url = f"{server.root.replace('://', '://user:hush@')}/a.csv?key=hush"
    found = message(lambda: place.resolve(UrlData(url=url)), SourceAbsentError)
    assert "hush" not in found + "".join(place.said)
    assert f"{server.root}/a.csv?..." in place.said[0]


@pytest.mark.parametrize(
    ("path", "name"),
    [("/", "data"), ("", "data"), ("/a/..", "data"), ("/x%2Fy", "x_y"), ("/%2e%2e", "data")],
)
def test_odd_urls_have_a_plain_name(place: Place, server: Server, path: str, name: str) -> None:
    server.answers[path or "/"] = server.answers[path] = Answer(CSV)
    assert place.resolve(UrlData(url=f"{server.root}{path}")).locked.file == name


def test_a_long_download_says_how_far_it_is(
    place: Place, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "_PROGRESS_SECONDS", 0.0)
    server.answers["/a"] = Answer(bytes(3_000_000))
    place.resolve(UrlData(url=f"{server.root}/a"))
    assert place.said[-1] == "data 'train': 3 of 3 MB"


# all


def test_a_build_with_nothing_to_fetch_loads_nothing_that_fetches() -> None:
    code = (
        "import sys, modelbuild.sources.data, modelbuild.sources.paths, "
        "modelbuild.sources.locations, modelbuild.sources.urls, modelbuild.sources.packages\n"
        "heavy = {'urllib.request', 'http.client', 'tarfile', 'zipfile', 'subprocess', 'ctypes', "
        "'filelock', 'rich', 'concurrent.futures', 'shutil', 'tempfile'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
