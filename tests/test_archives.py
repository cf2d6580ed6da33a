"""Archives that nobody vouches for: what is unpacked, and what is refused."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.errors import ModelbuildError
from modelbuild.sources.archives import Limits, is_archive, unpack
from modelbuild.store.tree import scan_tree

TITLE = "recipe.toml:3: data 'x': archive"


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_zip(path: Path, *members: tuple[str, bytes, int]) -> Path:
    """Members are name, content and Unix mode."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.create_system = 3
            info.compress_type = zipfile.ZIP_DEFLATED
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that comes twice
                archive.writestr(info, content)
    return path


def refused(archive: Path, target: Path, limits: Limits | None = None) -> str:
    with pytest.raises(ModelbuildError) as error:
        unpack(archive, target, TITLE, limits or Limits())
    return str(error.value)


def listing(root: Path) -> dict[str, str]:
    return {os.fsdecode(entry.path): entry.kind for entry in scan_tree(root).entries}


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_tar_archives_are_unpacked_whatever_their_compression(tmp_path: Path, suffix: str) -> None:
    mode = {".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
    archive = write_tar(
        tmp_path / f"a{suffix}",
        (member("./", tarfile.DIRTYPE), b""),
        (member("top", tarfile.DIRTYPE, mode=0o700), b""),
        (member("top/a.csv", mtime=1), b"a,b\n"),
        (member("top/deep/er/run.sh", mode=0o750), b"#!/bin/sh\n"),
        (member("top/link", tarfile.SYMTYPE, linkname="deep/er"), b""),
        (member("top/same", tarfile.LNKTYPE, linkname="top/a.csv"), b""),
        (member("top/empty", tarfile.DIRTYPE), b""),
        mode=mode.get(suffix, "w"),
    )
    assert is_archive(archive.name)
    unpack(archive, tmp_path / "out", TITLE)
    assert listing(tmp_path / "out") == {
        "top/a.csv": "f",
        "top/deep/er/run.sh": "x",
        "top/empty": "d",
        "top/link": "l",
        "top/same": "f",
    }
    assert (tmp_path / "out" / "top" / "same").read_bytes() == b"a,b\n"


def test_zip_archives_are_unpacked(tmp_path: Path) -> None:
    archive = write_zip(
        tmp_path / "a.ZIP",
        ("top/", b"", stat.S_IFDIR | 0o755),
        ("top/a.csv", b"a,b\n", stat.S_IFREG | 0o644),
        ("top/deep/run.sh", b"#!/bin/sh\n", stat.S_IFREG | 0o755),
        ("top/link", b"deep/run.sh", stat.S_IFLNK | 0o777),
        ("top/plain", b"no mode", 0),
    )
    assert is_archive(archive.name)
    unpack(archive, tmp_path / "out", TITLE)
    assert listing(tmp_path / "out") == {
        "top/a.csv": "f",
        "top/deep/run.sh": "x",
        "top/link": "l",
        "top/plain": "f",
    }
    assert os.readlink(tmp_path / "out" / "top" / "link") == "deep/run.sh"


def test_the_same_content_gives_the_same_tree_from_tar_and_zip(tmp_path: Path) -> None:
    unpack(write_tar(tmp_path / "a.tar", (member("a"), b"x")), tmp_path / "one", TITLE)
    unpack(write_zip(tmp_path / "a.zip", ("a", b"x", 0o100600)), tmp_path / "two", TITLE)
    assert scan_tree(tmp_path / "one") == scan_tree(tmp_path / "two")


def test_names_that_are_not_utf8_are_kept_as_bytes(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"new\nline", b"with space"]
    tar = write_tar(tmp_path / "a.tar", *((member(os.fsdecode(name)), b"") for name in names))
    unpack(tar, tmp_path / "out", TITLE)
    assert [entry.path for entry in scan_tree(tmp_path / "out").entries] == sorted(names)
    # A zip without the flag for UTF-8 says nothing about its names: they are bytes.
    packed = write_zip(tmp_path / "a.zip", ("gr__e", b"", 0)).read_bytes()
    (tmp_path / "a.zip").write_bytes(packed.replace(b"gr__e", b"gr\xfc\xdfe"))
    unpack(tmp_path / "a.zip", tmp_path / "zip", TITLE)
    assert [entry.path for entry in scan_tree(tmp_path / "zip").entries] == [b"gr\xfc\xdfe"]


BAD_NAMES = {
    "/etc/passwd": "absolute name",
    "../out": "name that leads out",
    "a/../../out": "name that leads out",
    "a/..": "name that leads out",
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    for archive in (
        write_tar(tmp_path / "a.tar", (member("fine"), b"x"), (member(name), b"evil")),
        write_tar(tmp_path / "d.tar", (member(name, tarfile.DIRTYPE), b"")),
        write_tar(tmp_path / "l.tar", (member(name, tarfile.SYMTYPE, linkname="x"), b"")),
        write_zip(tmp_path / "a.zip", ("fine", b"x", 0), (name, b"evil", 0)),
    ):
        message = refused(archive, tmp_path / f"out-{archive.name}")
        assert message == f"{TITLE} is not safe to unpack\n  {BAD_NAMES[name]}: {name}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["../out", "/etc", "a/../../out", "d/up/../out"])
def test_links_that_lead_out_are_refused(tmp_path: Path, target: str) -> None:
    up = member("d/up", tarfile.SYMTYPE, linkname="..")
    bad = member("d/bad", tarfile.SYMTYPE, linkname=f"../{target}" if target[0] != "/" else target)
    tar = write_tar(tmp_path / "a.tar", (up, b""), (bad, b""))
    packed = write_zip(
        tmp_path / "a.zip",
        ("d/up", b"..", stat.S_IFLNK),
        ("d/bad", bad.linkname.encode(), stat.S_IFLNK),
    )
    for archive in (tar, packed):
        message = refused(archive, tmp_path / f"out-{archive.name}")
        assert message == f"{TITLE} is not safe to unpack\n  link that leads out: d/bad"


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    link = (member("a", tarfile.SYMTYPE, linkname=str(tmp_path / "victim")), b"")
    inside = (member("b", tarfile.SYMTYPE, linkname="c"), b"")
    for number, members in enumerate(
        ([link, (member("a/evil"), b"x")], [(member("c/x"), b""), inside, (member("b/evil"), b"")])
    ):
        archive = write_tar(tmp_path / f"{number}.tar", *members)
        message = refused(archive, tmp_path / f"out{number}")
        name = "ab"[number]
        assert message == f"{TITLE} is not safe to unpack\n  name that comes twice: {name}"
    assert list((tmp_path / "victim").iterdir()) == []


@pytest.mark.parametrize("linkname", ["../secret", "/etc/passwd", "later", "folder", "missing"])
def test_hard_links_reach_only_earlier_files_of_the_archive(tmp_path: Path, linkname: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    archive = write_tar(
        tmp_path / "a.tar",
        (member("folder", tarfile.DIRTYPE), b""),
        (member("h", tarfile.LNKTYPE, linkname=linkname), b""),
        (member("later"), b"x"),
    )
    message = refused(archive, tmp_path / "out")
    assert message == f"{TITLE} is not safe to unpack\n  link to no earlier file: h"


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_special_members_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = write_tar(tmp_path / "a.tar", (member("odd", kind), b""))
    if kind == b"Z":  # types that nobody knows are files, says the standard
        unpack(archive, tmp_path / "out", TITLE)
        assert listing(tmp_path / "out") == {"odd": "f"}
        return
    message = refused(archive, tmp_path / "out")
    assert message == f"{TITLE} is not safe to unpack\n  neither file, folder nor link: odd"


def test_special_members_of_zip_archives_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", ("odd", b"", stat.S_IFIFO | 0o644))
    message = refused(archive, tmp_path / "out")
    assert message == f"{TITLE} is not safe to unpack\n  neither file, folder nor link: odd"


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", ("secret", b"x", 0))
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[data.index(b"PK\x03\x04") + 6] |= 1
    archive.write_bytes(data)
    message = refused(archive, tmp_path / "out")
    assert message == f"{TITLE} is not safe to unpack\n  encrypted member: secret"


@pytest.mark.parametrize("second", ["a", "./a", "a/b", "a//"])
def test_names_that_come_twice_are_refused(tmp_path: Path, second: str) -> None:
    folder = second.endswith("/")
    for archive in (
        write_tar(
            tmp_path / "a.tar",
            (member("a"), b"1"),
            (member(second, tarfile.DIRTYPE if folder else tarfile.REGTYPE), b""),
        ),
        write_zip(tmp_path / "a.zip", ("a", b"1", 0), (second, b"", 0)),
    ):
        message = refused(archive, tmp_path / f"out-{archive.name}")
        assert message == f"{TITLE} is not safe to unpack\n  name that comes twice: a"


def test_a_folder_may_be_listed_twice(tmp_path: Path) -> None:
    folder = (member("a", tarfile.DIRTYPE), b"")
    unpack(write_tar(tmp_path / "a.tar", folder, folder), tmp_path / "out", TITLE)
    assert listing(tmp_path / "out") == {"a": "d"}


HINT = (
    "If that is as it should be, unpack it by hand, and name the folder with 'path' or 'location'."
)


@pytest.mark.parametrize(
    ("limits", "found"),
    [
        (Limits(members=2), "more than 2 members"),
        (Limits(bytes=999_999), "more than 999,999 bytes"),
        (Limits(ratio=10, free_bytes=1000), "more than 10 times the size of the archive"),
    ],
)
def test_archives_that_expand_too_far_are_refused(
    tmp_path: Path, limits: Limits, found: str
) -> None:
    content = bytes(1_000_000)
    members = [(member(name), content if name == "a" else b"") for name in "abc"]
    for archive in (
        write_tar(tmp_path / "a.tar.gz", *members, mode="w:gz"),
        write_tar(tmp_path / "a.tar.xz", *members, mode="w:xz"),
        write_zip(tmp_path / "a.zip", *((info.name, data, 0) for info, data in members)),
    ):
        message = refused(archive, tmp_path / f"out-{archive.name}", limits)
        assert message == f"{TITLE} expands too far to be unpacked\n  found: {found}\n{HINT}"
        unpack(archive, tmp_path / f"fine-{archive.name}", TITLE)


def test_hard_links_and_sparse_files_and_padding_count_as_well(tmp_path: Path) -> None:
    limits = Limits(bytes=1_500_000)
    copies = [(member(f"h{n}", tarfile.LNKTYPE, linkname="a"), b"") for n in range(2)]
    linked = write_tar(tmp_path / "linked.tar", (member("a"), bytes(1_000_000)), *copies)
    padded = write_tar(tmp_path / "padded.tar", (member("a"), b""))
    with padded.open("ab") as file:
        file.write(bytes(2_000_000))
    for archive in (linked, padded):
        message = refused(archive, tmp_path / f"out-{archive.name}", limits)
        assert "found: more than 1,500,000 bytes" in message


def test_an_enormous_header_is_not_read_into_memory(tmp_path: Path) -> None:
    header = member("pax", tarfile.XHDTYPE, size=8 << 30).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(header + bytes(10240))
    assert refused(tmp_path / "a.tar", tmp_path / "out") == (
        f"{TITLE} can't be unpacked: it is damaged, or not an archive\n"
        "  wanted: .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz, .zip\n"
        "  found:  a header of 8,589,934,592 bytes"
    )


def _archives(folder: Path) -> list[Path]:
    noise = random.Random(1).randbytes(3000)
    members = [(member(name), noise) for name in ("one", "two", "three")]
    return [
        write_tar(folder / "a.tar", *members),
        write_tar(folder / "a.tar.gz", *members, mode="w:gz"),
        write_tar(folder / "a.tar.bz2", *members, mode="w:bz2"),
        write_tar(folder / "a.tar.xz", *members, mode="w:xz"),
        write_zip(folder / "a.zip", *((info.name, data, 0o100644) for info, data in members)),
    ]


def test_truncated_archives_are_never_taken_for_whole(tmp_path: Path) -> None:
    for archive in _archives(tmp_path):
        whole = archive.read_bytes()
        # A plain tar may end after any member, and after its end mark comes only padding.
        ends = (1000, 4000, 9000) if archive.suffix == ".tar" else (20, len(whole) // 2, -30, -1)
        for number, end in enumerate(ends):
            archive.write_bytes(whole[:end])
            message = refused(archive, tmp_path / f"out-{archive.name}-{number}")
            assert "can't be unpacked: it is damaged, or not an archive" in message


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", *((member(name), b"x") for name in "ab"))
    data = bytearray(archive.read_bytes())
    data[1024 + 3] ^= 0xFF  # in the second name
    archive.write_bytes(data)
    assert "found:  a damaged header" in refused(archive, tmp_path / "out")


def test_flipped_bits_of_compressed_archives_are_seen(tmp_path: Path) -> None:
    for archive in _archives(tmp_path)[1:]:
        whole = archive.read_bytes()
        for at in (len(whole) // 3, len(whole) // 2, -6):
            damaged = bytearray(whole)
            damaged[at] ^= 0x10
            archive.write_bytes(damaged)
            target = tmp_path / f"out-{archive.name}-{at}"
            if archive.suffix == ".zip" and at == -6:
                continue  # where the directory begins; it is still found
            assert "can't be unpacked" in refused(archive, target)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04", b"\x1f\x8b"])
def test_what_is_no_archive_is_one_message(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar.gz").write_bytes(content)
    message = refused(tmp_path / "a.tar.gz", tmp_path / "out")
    assert message.startswith(f"{TITLE} can't be unpacked: it is damaged, or not an archive\n")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_archive_however_damaged_gives_anything_but_a_message(data: st.DataObject) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = data.draw(st.sampled_from(_archives(folder)))
        content = bytearray(archive.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
        archive.write_bytes(content)
        before = sorted(folder.iterdir())
        try:
            unpack(archive, folder / "out", TITLE)
        except ModelbuildError:
            pass
        else:
            scan_tree(folder / "out")
        assert sorted(p for p in folder.iterdir() if p.name != "out") == before


@pytest.mark.parametrize("count", [10, 10_000])
def test_headers_that_only_announce_headers_end(tmp_path: Path, count: int) -> None:
    info = member("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=5).tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes((info + b"name\0".ljust(512, b"\0")) * count)
    assert "can't be unpacked" in refused(tmp_path / "a.tar", tmp_path / "out")


def test_a_zip_member_that_lies_about_its_size_is_seen(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", ("a", bytes(5000), 0))
    data = bytearray(archive.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 10)
    archive.write_bytes(data)
    assert "can't be unpacked" in refused(archive, tmp_path / "out")
