"""Trees: what their digest depends on, what it does not, and what can't be a tree."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from modelbuild.errors import ModelbuildError
from modelbuild.store import copies
from modelbuild.store import tree as tree_module
from modelbuild.store.copies import copy_tree, fsync_tree, make_read_only
from modelbuild.store.store import remove_tree
from modelbuild.store.tree import (
    Entry,
    hash_file,
    scan_file,
    scan_tree,
    shown,
    system_errors,
    tree_digest,
)

ODD_NAMES = (b"with space", b"new\nline", b"\xff\xfe not utf-8", "grüße".encode())
GOLDEN = "b3:56490368b4e0270d0c153b303ead160975757d5e869217e7d1bdec2b39c17fd3"


def fill(root: Path) -> Path:
    (root / "b" / "empty").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"alpha\n")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "b" / "link").symlink_to("../a.txt")
    return root


def test_a_tree_lists_files_links_and_empty_folders_sorted(tmp_path: Path) -> None:
    tree = scan_tree(fill(tmp_path / "t"))
    assert [(entry.path, entry.kind, entry.size) for entry in tree.entries] == [
        (b"a.txt", "f", 6),
        (b"b/empty", "d", 0),
        (b"b/link", "l", 8),
        (b"run.sh", "x", 10),
    ]
    assert tree.entries[0].digest == blake3(b"alpha\n").hexdigest()
    assert tree.entries[2].digest == blake3(b"../a.txt").hexdigest()
    assert (tree.files, tree.bytes) == (2, 16)


def test_the_digest_of_a_tree_is_the_same_for_ever(tmp_path: Path) -> None:
    assert str(scan_tree(fill(tmp_path / "t")).digest) == GOLDEN


def test_times_other_modes_and_the_place_do_not_count(tmp_path: Path) -> None:
    first, second = fill(tmp_path / "one"), fill(tmp_path / "two")
    os.utime(second / "a.txt", (1, 1))
    (second / "a.txt").chmod(0o600)
    (second / "run.sh").chmod(0o700)
    (second / "b").chmod(0o711)
    assert scan_tree(first) == scan_tree(second)


def _edit(root: Path) -> None:
    (root / "a.txt").write_bytes(b"alphA\n")


def _make_executable(root: Path) -> None:
    (root / "a.txt").chmod(0o755)


def _rename(root: Path) -> None:
    (root / "a.txt").rename(root / "a.tx")


def _move_link(root: Path) -> None:
    (root / "b" / "link").unlink()
    (root / "b" / "link").symlink_to("../run.sh")


def _link_becomes_file(root: Path) -> None:
    (root / "b" / "link").unlink()
    (root / "b" / "link").write_bytes(b"../a.txt")


def _remove_empty_folder(root: Path) -> None:
    (root / "b" / "empty").rmdir()


def _folder_becomes_file(root: Path) -> None:
    (root / "b" / "empty").rmdir()
    (root / "b" / "empty").touch()


@pytest.mark.parametrize(
    "change",
    [
        _edit,
        _make_executable,
        _rename,
        _move_link,
        _link_becomes_file,
        _remove_empty_folder,
        _folder_becomes_file,
    ],
)
def test_whatever_counts_changes_the_digest(tmp_path: Path, change: Callable[[Path], None]) -> None:
    root = fill(tmp_path / "t")
    before = scan_tree(root).digest
    change(root)
    assert scan_tree(root).digest != before


@given(st.lists(st.tuples(st.binary(min_size=1), st.sampled_from("fxld")), min_size=1))
def test_no_two_lists_of_entries_have_one_digest(names: list[tuple[bytes, str]]) -> None:
    content = blake3(b"").hexdigest()
    entries = {Entry(path, kind, content, 0) for path, kind in names}
    digest = tree_digest(entries)
    assert digest == tree_digest(sorted(entries, reverse=True))
    for entry in entries:
        assert tree_digest(entries - {entry}) != digest
        longer = entry._replace(path=entry.path + b"1")
        if longer not in entries:
            assert tree_digest(entries - {entry} | {longer}) != digest


def test_a_single_file_is_the_tree_that_holds_just_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data.csv").write_bytes(b"a,b\n1,2\n")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "data.csv").symlink_to(folder / "data.csv")
    tree = scan_file(folder / "data.csv")
    assert tree == scan_tree(folder)
    assert tree == scan_file(tmp_path / "link" / "data.csv")


def test_an_empty_folder_is_a_tree_without_entries(tmp_path: Path) -> None:
    tree = scan_tree(tmp_path)
    assert (tree.entries, tree.files, tree.bytes) == ((), 0, 0)


def test_odd_names_are_kept_as_bytes_and_can_be_printed(tmp_path: Path) -> None:
    root = tmp_path / "t"
    root.mkdir()
    for name in ODD_NAMES:
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(name)
    assert [entry.path for entry in scan_tree(root).entries] == sorted(ODD_NAMES)
    copy_tree(root, tmp_path / "copy")
    assert scan_tree(tmp_path / "copy") == scan_tree(root)
    assert [shown(name) for name in ODD_NAMES] == [
        "with space",
        r"new\nline",
        r"\xff\xfe not utf-8",
        "grüße",
    ]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (16 << 20) + 5])
def test_files_of_every_size_have_their_plain_digest(tmp_path: Path, size: int) -> None:
    content = os.urandom(1000) * (size // 1000 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert hash_file(os.fsencode(tmp_path / "file"), b"x") == Entry(
        b"x", "f", blake3(content[:size]).hexdigest(), size
    )


def test_a_large_file_with_an_odd_name_has_its_plain_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_module, "_LARGE", 1)
    path = os.path.join(os.fsencode(tmp_path), ODD_NAMES[2])
    with open(path, "wb") as file:
        file.write(b"content" * 1000)
    assert hash_file(path, b"x").digest == blake3(b"content" * 1000).hexdigest()


@pytest.mark.parametrize(
    "target", ["../outside", "b/../../outside", "/etc/passwd", "up/../outside"]
)
def test_a_link_that_leads_out_is_refused(tmp_path: Path, target: str) -> None:
    root = fill(tmp_path / "t")
    (root / "up").symlink_to("b/..")  # so `up/..` is not the root but above it
    (root / "bad").symlink_to(target)
    with pytest.raises(ModelbuildError) as error:
        scan_tree(root)
    assert str(error.value) == (
        f"a link leads out of its folder: {root}/bad\n"
        f"  target: {target}\n"
        "  wanted: a relative path inside the folder"
    )
    with pytest.raises(ModelbuildError, match="a link leads out of its folder"):
        copy_tree(root, tmp_path / "copy")


@pytest.mark.parametrize("target", ["a.txt", "b/../a.txt", "nowhere", "loop", ".", "b/link"])
def test_a_link_that_stays_inside_is_kept(tmp_path: Path, target: str) -> None:
    root = fill(tmp_path / "t")
    (root / "loop").symlink_to(target)
    copy_tree(root, tmp_path / "copy")
    assert os.readlink(tmp_path / "copy" / "loop") == target
    assert scan_tree(tmp_path / "copy") == scan_tree(root)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


@pytest.mark.parametrize("make", [_fifo, _socket])
def test_special_files_are_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    root = fill(tmp_path / "t")
    make(root / "odd")
    for act in (scan_tree, lambda path: copy_tree(path, tmp_path / "copy")):
        with pytest.raises(ModelbuildError) as error:
            act(root)
        assert str(error.value) == (
            f"neither a file, a folder nor a link: {root}/odd\n"
            "Sockets, devices and fifos have no content that could be locked; remove it."
        )


def test_a_fifo_as_a_single_file_does_not_block(tmp_path: Path) -> None:
    _fifo(tmp_path / "odd")
    with pytest.raises(ModelbuildError, match="neither a file, a folder nor a link"):
        scan_file(tmp_path / "odd")


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ModelbuildError) as error:
        scan_file(tmp_path / "nothing")
    assert str(error.value) == f"cannot read {tmp_path}/nothing: No such file or directory"


def _truncate(path: Path, stop: threading.Event) -> None:
    size = path.stat().st_size
    while not stop.is_set():
        os.truncate(path, size // 2)
        os.truncate(path, size)


def _overwrite(path: Path, stop: threading.Event) -> None:
    with path.open("r+b", buffering=0) as file:
        while not stop.is_set():
            os.pwrite(file.fileno(), b"x", 0)


def _scan_often(path: Path) -> None:
    for _ in range(20):
        scan_file(path)


@pytest.mark.parametrize("change", [_truncate, _overwrite])
@pytest.mark.parametrize("large", [1, 1 << 60])
def test_a_file_that_changes_while_it_is_read_is_an_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    large: int,
    change: Callable[[Path, threading.Event], None],
) -> None:
    """Also where it is mapped: a mapping of a truncated file kills the process that reads it."""
    monkeypatch.setattr(tree_module, "_LARGE", large)
    path = tmp_path / "growing"
    path.write_bytes(bytes(64 << 20))
    stop = threading.Event()
    writer = threading.Thread(target=change, args=(path, stop))
    writer.start()
    try:
        with pytest.raises(ModelbuildError) as error:
            _scan_often(path)
    finally:
        stop.set()
        writer.join()
    assert str(error.value) == (
        f"changed while it was read: {path}\n"
        "Wait until nothing writes to it, then run the command again."
    )


def test_a_copy_has_fresh_inodes_and_only_what_counts(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    os.link(root / "a.txt", root / "same.txt")
    copy = tmp_path / "copy"
    copy_tree(root, copy)
    assert scan_tree(copy) == scan_tree(root)
    inodes = {(copy / name).stat().st_ino for name in ("a.txt", "same.txt")}
    assert len(inodes) == 2
    (root / "a.txt").write_bytes(b"changed")
    assert (copy / "a.txt").read_bytes() == b"alpha\n"


def test_a_copy_of_a_large_file_is_whole(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "big").write_bytes(os.urandom(5 << 20))
    copy_tree(tmp_path / "t", tmp_path / "copy")
    assert scan_tree(tmp_path / "copy") == scan_tree(tmp_path / "t")


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "file").write_bytes(b"x")
    with (
        open("/dev/full", "wb", buffering=0) as full,
        open(tmp_path / "t" / "file", "rb") as file,
        pytest.raises(ModelbuildError) as error,
        system_errors(b"/store/file", "write"),
    ):
        copies._copy_content(file.fileno(), full.fileno())
    assert str(error.value) == "cannot write /store/file: No space left on device"


def test_a_copy_does_not_overwrite(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    with pytest.raises(ModelbuildError) as error:
        copy_tree(root, root)
    assert str(error.value) == f"cannot write {root}: File exists"


def test_read_only_trees_keep_their_digest(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    before = scan_tree(root)
    make_read_only(root)
    modes = {str(p.relative_to(root)): p.lstat().st_mode & 0o777 for p in sorted(root.rglob("*"))}
    assert modes == {
        "a.txt": 0o444,
        "b": 0o555,
        "b/empty": 0o555,
        "b/link": 0o777,
        "run.sh": 0o555,
    }
    assert root.stat().st_mode & 0o777 == 0o555
    assert scan_tree(root) == before
    remove_tree(root)


def test_shared_files_keep_their_modes(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    make_read_only(root, files=False)
    assert (root / "a.txt").stat().st_mode & 0o200
    assert not (root / "b").stat().st_mode & 0o200
    remove_tree(root)


@pytest.mark.parametrize("many", [0, 1000])
def test_a_tree_can_be_synced_file_by_file_and_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(copies, "_MANY", many)
    root = fill(tmp_path / "t")
    before = scan_tree(root)
    fsync_tree(root)
    assert scan_tree(root) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_one_message(tmp_path: Path) -> None:
    root = fill(tmp_path / "t")
    (root / "a.txt").chmod(0)
    with pytest.raises(ModelbuildError) as error:
        scan_tree(root)
    assert str(error.value) == f"cannot read {root}/a.txt: Permission denied"
