"""The stat cache: never a stale digest, and no more reading than needed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modelbuild.errors import ModelbuildError
from modelbuild.store import stat_cache
from modelbuild.store.stat_cache import Selection, StatCache
from modelbuild.store.tree import Entry, scan_entry, scan_file, scan_tree

HOUR = 3600 * 10**9


@pytest.fixture
def cache(tmp_path: Path) -> StatCache:
    """A cache whose clock is an hour ahead, so that files just written count as old."""
    return StatCache(tmp_path / "stat-cache", clock=lambda: time.time_ns() + HOUR)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "sub" / "empty").mkdir(parents=True)
    for number in range(5):
        (root / f"part-{number}").write_bytes(b"%04d" % number)
    (root / "sub" / "link").symlink_to("../part-0")
    return root


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that the cache really reads, which it goes on doing."""
    paths: list[str] = []

    def scan(top: bytes, relative: bytes, kind: str) -> Entry:
        paths.append(os.fsdecode(relative))
        return scan_entry(top, relative, kind)

    monkeypatch.setattr(stat_cache, "scan_entry", scan)
    return paths


def test_the_result_is_that_of_a_scan(cache: StatCache, data: Path) -> None:
    for _ in range(2):
        found, scanned = cache.tree(data), scan_tree(data)
        assert (found.digest, found.files, found.bytes) == (scanned.digest, 5, 20)
        assert found.signature == cache.signature(data)


def test_a_single_file_is_the_tree_that_holds_just_it(
    cache: StatCache, data: Path, read: list[str]
) -> None:
    for _ in range(2):
        assert cache.tree(data / "part-1").digest == scan_file(data / "part-1").digest
    assert read == ["part-1"]


def test_the_second_time_nothing_is_read(cache: StatCache, data: Path, read: list[str]) -> None:
    cache.tree(data)
    assert len(read) == 7
    read.clear()
    cache.tree(data)
    assert read == []


def test_only_the_touched_file_is_read_again(cache: StatCache, data: Path, read: list[str]) -> None:
    cache.tree(data)
    read.clear()
    os.utime(data / "part-3")
    before = cache.tree(data)
    assert read == ["part-3"]
    assert before.digest == scan_tree(data).digest


def _edit_keeping_size_and_time(root: Path) -> None:
    before = (root / "part-2").stat()
    (root / "part-2").write_bytes(b"edit")
    os.utime(root / "part-2", ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace_keeping_size_and_time(root: Path) -> None:
    before = (root / "part-2").stat()
    (root / "new").write_bytes(b"edit")
    os.utime(root / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "new").rename(root / "part-2")


def _make_executable(root: Path) -> None:
    (root / "part-2").chmod(0o755)


def _rename(root: Path) -> None:
    (root / "part-2").rename(root / "part-x")


def _swap(root: Path) -> None:
    (root / "part-1").rename(root / "tmp")
    (root / "part-2").rename(root / "part-1")
    (root / "tmp").rename(root / "part-2")


def _remove(root: Path) -> None:
    (root / "part-2").unlink()


def _add(root: Path) -> None:
    (root / "part-9").touch()


def _move_link(root: Path) -> None:
    (root / "sub" / "link").unlink()
    (root / "sub" / "link").symlink_to("../part-1")


def _remove_empty_folder(root: Path) -> None:
    (root / "sub" / "empty").rmdir()


@pytest.mark.parametrize(
    "change",
    [
        _edit_keeping_size_and_time,
        _replace_keeping_size_and_time,
        _make_executable,
        _rename,
        _swap,
        _remove,
        _add,
        _move_link,
        _remove_empty_folder,
    ],
)
def test_every_change_is_seen(cache: StatCache, data: Path, change: Callable[[Path], None]) -> None:
    before = cache.tree(data)
    change(data)
    after = cache.tree(data)
    assert after.digest == scan_tree(data).digest != before.digest
    assert after.signature != before.signature


def test_an_edit_that_was_taken_back_moves_the_signature_but_not_the_digest(
    cache: StatCache, data: Path
) -> None:
    before = cache.tree(data)
    (data / "part-2").write_bytes(b"edit")
    (data / "part-2").write_bytes(b"0002")
    after = cache.tree(data)
    assert after.digest == before.digest
    assert after.signature != before.signature


def test_two_changes_within_one_tick_of_the_clock_are_both_seen(tmp_path: Path) -> None:
    """The second leaves the file's status as it was, wherever the clock is coarse enough."""
    cache = StatCache(tmp_path / "stat-cache")
    path = tmp_path / "file"
    for _ in range(100):
        path.write_bytes(b"first!")
        assert cache.tree(path).digest == scan_file(path).digest
        path.write_bytes(b"second")
        assert cache.tree(path).digest == scan_file(path).digest


def test_a_new_file_is_read_again_and_an_old_one_is_not(
    tmp_path: Path, data: Path, read: list[str]
) -> None:
    now = time.time_ns()
    for clock, expected in ((now, 6), (now + 3 * 10**9, 6), (now + 3 * 10**9, 0)):
        read.clear()
        StatCache(tmp_path / "stat-cache", clock=lambda clock=clock: clock).tree(data)
        # The empty folder has no status that could mislead.
        assert len(set(read) - {"sub/empty"}) == expected


def test_files_from_the_future_are_never_trusted(
    tmp_path: Path, data: Path, read: list[str]
) -> None:
    """The clock was set back: it may come by the same time again."""
    cache = StatCache(tmp_path / "stat-cache", clock=lambda: time.time_ns() - HOUR)
    cache.tree(data)
    read.clear()
    cache.tree(data)
    assert len(read) == 6


def test_a_clock_set_back_after_the_first_look_does_not_hide_a_change(
    tmp_path: Path, data: Path
) -> None:
    offset = HOUR
    cache = StatCache(tmp_path / "stat-cache", clock=lambda: time.time_ns() + offset)
    cache.tree(data)
    offset = -HOUR
    _edit_keeping_size_and_time(data)
    assert cache.tree(data).digest == scan_tree(data).digest


def test_a_damaged_cache_is_ignored_and_written_again(
    cache: StatCache, data: Path, read: list[str]
) -> None:
    expected = cache.tree(data)
    [place] = cache.folder.iterdir()
    whole = place.read_bytes()
    damages = [whole[:end] for end in (0, 10, 24, 60, 100, 180, len(whole) - 1)]
    damages += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for damaged in damages:
        place.write_bytes(damaged)
        assert cache.tree(data) == expected
    os.utime(data / "part-1")  # so that what is known of the others is read
    for damaged in damages:
        place.write_bytes(damaged)
        assert cache.tree(data).digest == expected.digest
    read.clear()
    cache.tree(data)
    assert read == []


def test_a_folder_in_place_of_the_cache_file_costs_only_time(cache: StatCache, data: Path) -> None:
    expected = cache.tree(data)
    [place] = cache.folder.iterdir()
    place.unlink()
    place.mkdir()
    assert cache.tree(data) == expected
    assert [path.name for path in cache.folder.iterdir()] == [place.name]


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path, data: Path) -> None:
    (tmp_path / "stat-cache").write_bytes(b"not a folder")
    cache = StatCache(tmp_path / "stat-cache")
    assert cache.tree(data).digest == scan_tree(data).digest


def test_two_roots_do_not_share_a_cache(cache: StatCache, data: Path) -> None:
    (data / "sub" / "link").unlink()
    (data / "sub" / "part-0").write_bytes(b"other")
    assert cache.tree(data).digest != cache.tree(data / "sub").digest
    assert cache.tree(data / "part-0").digest != cache.tree(data / "sub" / "part-0").digest


def test_a_folder_that_becomes_a_file_is_seen(cache: StatCache, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    folder = cache.tree(root)
    root.rmdir()
    root.write_bytes(b"")
    assert cache.tree(root).digest == scan_file(root).digest != folder.digest


def test_a_selection_covers_only_its_files(cache: StatCache, data: Path, read: list[str]) -> None:
    chosen = Selection("part-[01]", (b"part-0", b"part-1"))
    first = cache.tree(data, only=chosen)
    assert (first.files, read) == (2, ["part-0", "part-1"])
    (data / "part-4").write_bytes(b"edit")
    assert cache.tree(data, only=chosen) == first
    (data / "part-1").write_bytes(b"edit")
    assert cache.tree(data, only=chosen).digest != first.digest
    assert read == ["part-0", "part-1", "part-1"]
    cache.tree(data)
    read.clear()
    cache.tree(data, only=chosen)
    cache.tree(data)
    assert read == []


def test_the_changes_since_what_was_to_be_kept_are_known(cache: StatCache, data: Path) -> None:
    locked = cache.tree(data).digest
    assert cache.changes(data, locked) is None
    (data / "part-1").write_bytes(b"edit")
    (data / "part-2").unlink()
    (data / "new").touch()
    cache.tree(data, keep=locked)
    assert cache.changes(data, locked) == [b"new", b"part-1", b"part-2"]
    (data / "new").unlink()
    cache.tree(data, keep=locked)
    assert cache.changes(data, locked) == [b"part-1", b"part-2"]


def test_a_missing_root_is_one_message(cache: StatCache, tmp_path: Path) -> None:
    with pytest.raises(ModelbuildError) as error:
        cache.tree(tmp_path / "nothing")
    assert str(error.value) == f"cannot read {tmp_path}/nothing: No such file or directory"
