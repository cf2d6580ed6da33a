"""Which file of a release is locked, and what the lock says of it."""

import zipfile
from pathlib import Path

import pytest
from local_index import LocalIndex, make_sdist, make_wheel, sha256

from modelbuild.errors import InvalidInputError, ModelbuildError, UnavailableError
from modelbuild.locking.metadata import FileFacts, describe_files, licence
from modelbuild.locking.resolver import OfferedFile, Question, Release
from modelbuild.locking.wheels import choose_file, platform_tags, target_tags


def question(platform: str = "x86_64-manylinux_2_28", python: str = "3.11.7") -> Question:
    return Question(requires=("alpha",), python=python, platform=platform)


def chosen(*tags: str, asked: Question | None = None) -> str:
    asked = asked or question()
    release = Release(
        name="alpha",
        version="1.0",
        files=tuple(offered(f"alpha-1.0-{tag}.whl") for tag in tags),
    )
    file = choose_file(release, target_tags(asked), asked)
    return file.filename.removeprefix("alpha-1.0-").removesuffix(".whl")


def offered(filename: str) -> OfferedFile:
    url = f"https://index.example/{filename}"
    return OfferedFile(url=url, filename=filename, sha256="00", bytes=1)


# -- the target -----------------------------------------------------------------------------------


def test_a_target_takes_its_glibc_and_all_older_ones() -> None:
    tags = platform_tags("x86_64-manylinux_2_28")
    assert tags[:2] == ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64")
    assert tags[11:13] == ("manylinux_2_17_x86_64", "manylinux2014_x86_64")
    assert tags[-3:] == ("manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64")
    assert platform_tags("aarch64-manylinux2014") == (
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
        "linux_aarch64",
    )


@pytest.mark.parametrize("platform", ["linux", "win_amd64", "x86_64-manylinux", "macos", ""])
def test_other_platforms_are_refused(platform: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        platform_tags(platform)
    assert str(caught.value).startswith(
        "[environment] platform is not one that modelbuild can lock for\n"
        "  wanted: x86_64-manylinux_2_N or aarch64-manylinux_2_N, N a version of glibc\n"
        f"  found:  {platform}"
    )


def test_tags_do_not_depend_on_the_host() -> None:
    tags = [str(tag) for tag in target_tags(question("aarch64-manylinux_2_28", "3.13.1"))]
    assert tags[0] == "cp313-cp313-manylinux_2_28_aarch64"
    assert "cp39-abi3-manylinux2014_aarch64" in tags
    assert tags[-1] == "py30-none-any"
    assert not [tag for tag in tags if "x86_64" in tag or "cp314" in tag]


# -- the choice -----------------------------------------------------------------------------------


def test_the_most_specific_wheel_wins_whatever_the_order() -> None:
    tags = [
        "py3-none-any",
        "py3-none-manylinux_2_28_x86_64",
        "cp39-abi3-manylinux_2_28_x86_64",
        "cp311-abi3-manylinux_2_17_x86_64",
        "cp311-cp311-linux_x86_64",
        "cp311-cp311-manylinux1_x86_64",
        "cp311-cp311-manylinux_2_28_x86_64",
    ]
    while tags:
        assert chosen(*tags) == chosen(*reversed(tags)) == tags.pop()


def test_a_wheel_with_several_tags_counts_with_its_best() -> None:
    several = "cp311-cp311-manylinux1_x86_64.manylinux_2_28_x86_64"
    assert chosen(several, "cp311-cp311-manylinux_2_17_x86_64") == several


def test_of_equal_wheels_the_highest_build_wins() -> None:
    assert chosen("py3-none-any", "10-py3-none-any", "9-py3-none-any") == "10-py3-none-any"


def test_a_wheel_for_another_target_is_never_chosen() -> None:
    with pytest.raises(UnavailableError) as caught:
        chosen(
            "cp311-cp311-manylinux_2_34_x86_64",
            "cp311-cp311t-manylinux_2_28_x86_64",
            "cp312-cp312-manylinux_2_28_x86_64",
            "cp311-cp311-manylinux_2_28_aarch64",
            "cp311-cp311-musllinux_1_2_x86_64",
        )
    assert caught.value.exit_code == 8
    assert caught.value.facts[0] == ("wanted", "CPython 3.11, x86_64-manylinux_2_28")


# -- licences -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (["License-Expression: MIT OR Apache-2.0", "License: other"], "MIT OR Apache-2.0"),
        (["Classifier: License :: OSI Approved :: MIT License"], "MIT"),
        (
            ["License: MPLv2", "Classifier: License :: OSI Approved :: Mozilla Public License 2.0"
             " (MPL 2.0)"],
            "MPL-2.0",
        ),
        (["License: BSD", "Classifier: License :: OSI Approved :: BSD License"], "BSD"),
        (["Classifier: License :: OSI Approved :: BSD License"], "BSD License"),
        (["Classifier: License :: OSI Approved", "License: Apache 2.0"], "Apache 2.0"),
        (
            [
                "Classifier: License :: OSI Approved :: MIT License",
                "Classifier: License :: OSI Approved :: Apache Software License",
            ],
            "Apache Software License, MIT License",
        ),
        (
            [
                "Classifier: License :: OSI Approved :: MIT License",
                "Classifier: License :: OSI Approved :: ISC License (ISCL)",
            ],
            "ISC License (ISCL), MIT License",
        ),
        (["License: Copyright me", "        all rights", "        reserved"], "unknown"),
        (["License: " + "long " * 50], "unknown"),
        (["License: UNKNOWN"], "unknown"),
        ([], "unknown"),
    ],
)  # fmt: skip
def test_a_licence_is_what_the_metadata_says(headers: list[str], expected: str) -> None:
    metadata = "\n".join(["Metadata-Version: 2.1", "Name: a", *headers, "", "License: body", ""])
    assert licence(metadata) == expected


# -- how it is read -------------------------------------------------------------------------------


def served(index: LocalIndex, path: Path, *, known: bool = True) -> OfferedFile:
    return OfferedFile(
        url=index.url.replace("/simple/", f"/files/{path.name}"),
        filename=path.name,
        sha256=sha256(path) if known else None,
        bytes=None,
    )


def facts(path: Path, name: str = "ISC") -> FileFacts:
    return FileFacts(sha256=sha256(path), bytes=path.stat().st_size, licence=name)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A wheel whose metadata lies before a megabyte that does not compress."""
    import random

    path = make_wheel(tmp_path / "wheels", "large", "1.0", licence="ISC")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("large.bin", random.Random(1).randbytes(1_000_000))
    return path


def test_metadata_is_read_from_a_file_of_its_own(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "alpha", "1.0", licence="ISC", metadata_file=True)
    with LocalIndex(tmp_path) as index:
        assert describe_files([served(index, path)], None) == (facts(path),)
        assert index.requests == [
            ("GET", f"/files/{path.name}.metadata"),
            ("HEAD", f"/files/{path.name}"),
        ]


def test_metadata_is_read_by_ranges_wherever_it_lies(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalIndex(large.parent) as index:
        file = served(index, large)
        assert describe_files([file], None) == (facts(large),)
        assert 3 <= len(index.requests) <= 5
        assert index.sent < 100_000


def test_metadata_is_read_from_the_whole_file_where_it_must(large: Path) -> None:
    with LocalIndex(large.parent, ranges=False) as index:
        assert describe_files([served(index, large)], None) == (facts(large),)
        assert describe_files([served(index, large, known=False)], None) == (facts(large),)


def test_an_sdists_metadata_is_its_pkg_info(tmp_path: Path) -> None:
    path = make_sdist(tmp_path, "alpha", "1.0", licence="ISC")
    with LocalIndex(tmp_path) as index:
        assert describe_files([served(index, path)], None) == (facts(path),)


def test_a_download_with_another_digest_is_refused(large: Path) -> None:
    with LocalIndex(large.parent, ranges=False) as index:
        file = served(index, large)
        make_wheel(large.parent, "large", "1.0", licence="MIT")
        with pytest.raises(ModelbuildError, match="digest mismatch") as caught:
            describe_files([file], None)
    assert caught.value.exit_code == 5


def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "alpha", "1.0")
    with LocalIndex(tmp_path) as index:
        file = served(index, path)
        path.unlink()
        with pytest.raises(ModelbuildError) as caught:
            describe_files([file], None)
    assert str(caught.value) == (
        "the metadata of alpha-1.0-py3-none-any.whl can't be read\n"
        "  from:    127.0.0.1\n"
        "  because: HTTP Error 404: Not Found"
    )


def test_a_file_that_is_no_wheel_is_told(tmp_path: Path) -> None:
    path = tmp_path / "alpha-1.0-py3-none-any.whl"
    path.write_bytes(b"<html>log in first</html>")
    file = OfferedFile(url=path.as_uri(), filename=path.name, sha256=None, bytes=None)
    with pytest.raises(ModelbuildError, match="because: File is not a zip file"):
        describe_files([file], None)


def test_a_broken_cache_is_read_over(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "alpha", "1.0", licence="ISC")
    file = OfferedFile(url=path.as_uri(), filename=path.name, sha256=sha256(path), bytes=None)
    cache = tmp_path / "cache"
    assert describe_files([file], cache) == (facts(path),)
    (entry,) = cache.iterdir()
    for broken in ("", "{}", "[1]", '{"sha256": "x", "more": 1}'):
        entry.write_text(broken)
        assert describe_files([file], cache) == (facts(path),)
    assert [*cache.iterdir()] == [entry]
