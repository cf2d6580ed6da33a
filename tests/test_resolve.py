"""Requirements to one locked environment, on indexes of our own."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from local_index import LocalIndex, make_sdist, make_wheel, only_packages_from, sha256

from modelbuild.errors import (
    DigestMismatchError,
    ModelbuildError,
    UnavailableError,
)
from modelbuild.locking.resolve import backend_of, releases_for_device, resolve_environment
from modelbuild.locking.resolver import Question, Release
from modelbuild.locking.uv import resolution_error
from modelbuild.spec.lock import LockedEnvironment, LockedWheel
from modelbuild.spec.recipe import Device, Environment

PYTHON = ".".join(map(str, __import__("sys").version_info[:3]))
MINOR = PYTHON.rpartition(".")[0]
both_resolvers = pytest.mark.parametrize(
    "resolver", ["uv", pytest.param("pip-tools", marks=pytest.mark.slow)]
)
CP = "cp" + MINOR.replace(".", "")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, the only place that packages come from, without any network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    only_packages_from(monkeypatch, find_links=folder, uv_cache=tmp_path / "uv")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


def resolve(
    *requires: str,
    previous: LockedEnvironment | None = None,
    update: Sequence[str] | None = None,
    device: Device = Device.CPU,
    python: str = PYTHON,
    said: list[str] | None = None,
    cache: Path | None = None,
    **environment: object,
) -> LockedEnvironment:
    asked = dataclasses.replace(Environment(python=MINOR, packages=requires), **environment)
    heard = [] if said is None else said
    return resolve_environment(
        asked, requires, python, device, previous, update, cache=cache, on_message=heard.append
    )


def versions(environment: LockedEnvironment) -> dict[str, str]:
    return {wheel.name: wheel.version for wheel in environment.wheels}


def files(environment: LockedEnvironment) -> list[str]:
    return [wheel.filename for wheel in environment.wheels]


# -- what is locked -------------------------------------------------------------------------------


def test_a_package_and_what_it_needs_are_locked_with_digest_size_and_licence(wheels: Path) -> None:
    alpha = make_wheel(wheels, "Alpha", "1.0", requires=["beta>=2"], licence="Apache-2.0")
    make_wheel(wheels, "beta", "1.0")
    beta = make_wheel(wheels, "beta", "2.0", licence="BSD-3-Clause")

    assert resolve("alpha") == LockedEnvironment(
        python=PYTHON,
        platform="x86_64-manylinux_2_28",
        backend="none",
        wheels=(
            LockedWheel(
                name="alpha",
                version="1.0",
                filename="Alpha-1.0-py3-none-any.whl",
                sha256=sha256(alpha),
                bytes=alpha.stat().st_size,
                licence="Apache-2.0",
            ),
            LockedWheel(
                name="beta",
                version="2.0",
                filename="beta-2.0-py3-none-any.whl",
                sha256=sha256(beta),
                bytes=beta.stat().st_size,
                licence="BSD-3-Clause",
            ),
        ),
    )


def test_an_index_and_a_folder_give_the_same_lock(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, "alpha", "1.0", requires=["beta>=2"], metadata_file=True)
    make_wheel(wheels, "beta", "2.0", licence=None, headers=["License: as you like"])
    from_folder = resolve("alpha")
    for options in ({}, {"ranges": False}, {"hashes": False}):
        with LocalIndex(wheels, **options) as index:
            only_packages_from(monkeypatch, index_url=index.url, uv_cache=tmp_path / "other")
            assert resolve("alpha") == from_folder


def test_markers_follow_the_target_and_not_the_host(wheels: Path) -> None:
    make_wheel(
        wheels,
        "alpha",
        "1.0",
        requires=[
            "arm; platform_machine == 'aarch64'",
            "intel; platform_machine == 'x86_64'",
            "new; python_version >= '3.13'",
            "exact; python_full_version == '3.12.4'",
            "windows; sys_platform == 'win32'",
        ],
    )
    for name in ("arm", "intel", "new", "exact", "windows"):
        make_wheel(wheels, name, "1.0")

    def names(python: str, platform: str) -> list[str]:
        return list(versions(resolve("alpha", python=python, platform=platform)))

    assert names("3.11.7", "aarch64-manylinux_2_28") == ["alpha", "arm"]
    assert names("3.12.4", "x86_64-manylinux_2_28") == ["alpha", "exact", "intel"]
    assert names("3.13.1", "x86_64-manylinux_2_28") == ["alpha", "intel", "new"]


def test_the_wheel_that_fits_the_target_best_is_the_one_that_is_locked(wheels: Path) -> None:
    for tag in (
        "py3-none-any",
        "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp311-cp311-manylinux_2_28_x86_64",
        "cp311-cp311-manylinux_2_34_x86_64",
        "cp311-cp311-manylinux_2_17_aarch64",
        "cp311-cp311-macosx_14_0_arm64",
        "cp313-cp313-manylinux_2_17_x86_64",
    ):
        make_wheel(wheels, "alpha", "1.0", tag=tag)

    def tag_for(python: str, platform: str) -> str:
        (name,) = files(resolve("alpha", python=python, platform=platform))
        return name.removeprefix("alpha-1.0-").removesuffix(".whl")

    assert tag_for("3.11.7", "x86_64-manylinux_2_28") == "cp311-cp311-manylinux_2_28_x86_64"
    assert tag_for("3.11.7", "x86_64-manylinux_2_17") == (
        "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"
    )
    assert tag_for("3.11.7", "aarch64-manylinux_2_28") == "cp311-cp311-manylinux_2_17_aarch64"
    assert tag_for("3.13.0", "x86_64-manylinux_2_28") == "cp313-cp313-manylinux_2_17_x86_64"
    assert tag_for("3.12.0", "aarch64-manylinux_2_28") == "py3-none-any"


def test_extras_and_constraints_are_part_of_the_question(wheels: Path) -> None:
    make_wheel(
        wheels, "alpha", "1.0", requires=["beta; extra == 'all'"], headers=["Provides-Extra: all"]
    )
    make_wheel(wheels, "beta", "1.0")
    make_wheel(wheels, "beta", "2.0")
    assert versions(resolve("alpha")) == {"alpha": "1.0"}
    assert versions(resolve("alpha[all]")) == {"alpha": "1.0", "beta": "2.0"}
    assert versions(resolve("-c beta<2", "alpha[all]")) == {"alpha": "1.0", "beta": "1.0"}


def test_exclude_newer_hides_what_was_uploaded_later(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for version, day in (("1.0", 1_700_000_000), ("2.0", 1_750_000_000)):
        os.utime(make_wheel(wheels, "alpha", version), (day, day))
    with LocalIndex(wheels) as index:
        only_packages_from(monkeypatch, index_url=index.url, uv_cache=tmp_path / "other")
        monkeypatch.setenv("TZ", "Asia/Tokyo")
        assert versions(resolve("alpha")) == {"alpha": "2.0"}
        # 1_750_000_000 is 2025-06-15T15:06:40Z, in Tokyo already the next day
        assert versions(resolve("alpha", exclude_newer="2025-06-14")) == {"alpha": "1.0"}
        assert versions(resolve("alpha", exclude_newer="2025-06-15")) == {"alpha": "2.0"}


# -- what stays -----------------------------------------------------------------------------------


def test_locked_versions_stay_until_they_are_named(wheels: Path) -> None:
    make_wheel(wheels, "alpha", "1.0")
    make_wheel(wheels, "beta", "1.0")
    before = resolve("alpha", "beta")
    make_wheel(wheels, "alpha", "1.1")
    make_wheel(wheels, "beta", "1.1")

    assert resolve("alpha", "beta", previous=before) == before
    named = resolve("alpha", "beta", previous=before, update=["beta"])
    assert versions(named) == {"alpha": "1.0", "beta": "1.1"}
    everything = resolve("alpha", "beta", previous=before, update=[])
    assert versions(everything) == {"alpha": "1.1", "beta": "1.1"}


def test_a_locked_version_that_no_longer_fits_moves_and_is_reported(wheels: Path) -> None:
    make_wheel(wheels, "alpha", "1.0")
    before = resolve("alpha")
    make_wheel(wheels, "alpha", "2.0")
    said: list[str] = []
    assert versions(resolve("alpha>=2", previous=before, said=said)) == {"alpha": "2.0"}
    assert said == [
        "alpha: 1.0 was locked, 2.0 is now: the requirements or the configured indexes no longer "
        "allow the former"
    ]


def test_a_locked_file_stays_when_a_better_one_appears(wheels: Path) -> None:
    make_wheel(wheels, "alpha", "1.0")
    before = resolve("alpha")
    make_wheel(wheels, "alpha", "1.0", tag=f"{CP}-{CP}-manylinux_2_28_x86_64")
    assert resolve("alpha", previous=before) == before
    assert files(resolve("alpha", previous=before, update=["alpha"])) == [
        f"alpha-1.0-{CP}-{CP}-manylinux_2_28_x86_64.whl"
    ]


def test_a_locked_file_that_is_gone_is_replaced_and_reported(wheels: Path) -> None:
    gone = make_wheel(wheels, "alpha", "1.0", tag=f"{CP}-{CP}-manylinux_2_28_x86_64")
    make_wheel(wheels, "alpha", "1.0")
    before = resolve("alpha")
    gone.unlink()
    said: list[str] = []
    assert files(resolve("alpha", previous=before, said=said)) == ["alpha-1.0-py3-none-any.whl"]
    assert said == [
        f"alpha 1.0: {gone.name} was locked and is no longer offered, "
        "alpha-1.0-py3-none-any.whl is now"
    ]


@pytest.mark.parametrize("hashes", [True, False])
@both_resolvers
def test_a_wheel_with_other_bytes_under_its_name_is_exit_code_5(
    resolver: str,
    hashes: bool,
    wheels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LocalIndex(wheels, hashes=hashes) as index:
        only_packages_from(monkeypatch, index_url=index.url, uv_cache=tmp_path / "other")
        monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
        first = sha256(make_wheel(wheels, "alpha", "1.0"))
        before = resolve("alpha", resolver=resolver)
        second = sha256(make_wheel(wheels, "alpha", "1.0", files={"alpha.py": "evil = True\n"}))
        with pytest.raises(DigestMismatchError) as caught:
            resolve("alpha", previous=before, resolver=resolver)
        assert resolve("alpha", previous=before, update=["alpha"]).wheels[0].sha256 == second
    assert caught.value.exit_code == 5
    assert str(caught.value) == (
        "digest mismatch in package 'alpha': alpha-1.0-py3-none-any.whl was replaced\n"
        f"  locked: sha256:{first}\n"
        f"  found:  sha256:{second}\n"
        "A release's files never change honestly; ask whoever runs the index. "
        "If the change is intended: modelbuild lock --update alpha"
    )


def test_locking_again_reads_no_wheel(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alpha", "beta", "gamma"):
        make_wheel(wheels, name, "1.0")
    with LocalIndex(wheels) as index:
        only_packages_from(monkeypatch, index_url=index.url, uv_cache=wheels / "uv")
        before = resolve("alpha", "beta", "gamma")
        index.requests.clear()
        assert resolve("alpha", "beta", "gamma", previous=before) == before
        assert [path for _, path in index.requests if path.startswith("/files/")] == []


def test_what_was_read_of_a_wheel_is_cached_by_its_digest(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, "alpha", "1.0")
    with LocalIndex(wheels) as index:
        only_packages_from(monkeypatch, index_url=index.url, uv_cache=tmp_path / "other")
        before = resolve("alpha", cache=tmp_path / "cache")
        index.requests.clear()
        assert resolve("alpha", cache=tmp_path / "cache") == before
        assert [path for _, path in index.requests if path.startswith("/files/")] == []


# -- wheels only ----------------------------------------------------------------------------------


@both_resolvers
def test_a_package_without_wheels_names_the_line_that_allows_building_it(
    resolver: str, wheels: Path
) -> None:
    make_sdist(wheels, "source", "1.0")
    make_wheel(wheels, "alpha", "1.0", requires=["source"])
    with pytest.raises(UnavailableError) as caught:
        resolve("alpha", resolver=resolver, from_source=("other",) if resolver == "uv" else ())
    names = '"other", "source"' if resolver == "uv" else '"source"'
    assert str(caught.value) == (
        "package 'source' has no wheel for the recipe's target\n"
        f"  wanted: CPython {MINOR}, x86_64-manylinux_2_28\n"
        "  found:  only a source distribution of version 1.0\n"
        f"To build it from source, write under [environment]: from-source = [{names}]"
    )


def test_the_name_of_a_module_is_told_from_that_of_its_package(wheels: Path) -> None:
    make_sdist(wheels, "sklearn", "0.0")
    with pytest.raises(UnavailableError) as without_wheels:
        resolve("sklearn")
    assert without_wheels.value.hint == (
        "The package with the module 'sklearn' is called scikit-learn: write that in its place."
    )
    with pytest.raises(ModelbuildError) as unknown:
        resolve("cv2")
    assert str(unknown.value) == (
        "there is no package 'cv2' on the index\n"
        "The package with the module 'cv2' is called opencv-python-headless: "
        "write that in its place."
    )


def test_wheels_for_other_platforms_are_named(wheels: Path) -> None:
    make_wheel(wheels, "alpha", "1.0", tag=f"{CP}-{CP}-macosx_14_0_arm64")
    with pytest.raises(UnavailableError) as caught:
        resolve("alpha")
    assert str(caught.value) == (
        "package 'alpha' has no wheel for the recipe's target\n"
        f"  wanted: CPython {MINOR}, x86_64-manylinux_2_28\n"
        "  found:  version 1.0 for macosx_14_0_arm64\n"
        "Only the first configured index that has the package is asked. If that has a source "
        'distribution, it can be built, with this line under [environment]: from-source = ["alpha"]'
    )


def test_wheels_for_other_pythons_are_named(wheels: Path) -> None:
    make_wheel(wheels, "alpha", "1.0", tag="cp310-cp310-manylinux_2_17_x86_64")
    with pytest.raises(UnavailableError) as caught:
        resolve("alpha")
    assert caught.value.facts[1] == ("found", "version 1.0 for cp310")


@both_resolvers
def test_from_source_pins_the_sdist_of_that_package_alone(resolver: str, wheels: Path) -> None:
    sdist = make_sdist(wheels, "source", "1.0", requires=["beta"], licence="ISC")
    make_wheel(wheels, "source", "1.0", requires=["beta"])
    make_sdist(wheels, "beta", "1.0")
    make_wheel(wheels, "beta", "1.0")
    locked = resolve("source", from_source=("source",), resolver=resolver)
    assert files(locked) == ["beta-1.0-py3-none-any.whl", "source-1.0.tar.gz"]
    assert locked.wheels[1] == LockedWheel(
        name="source",
        version="1.0",
        filename="source-1.0.tar.gz",
        sha256=sha256(sdist),
        bytes=sdist.stat().st_size,
        licence="ISC",
    )
    assert resolve("source", from_source=("source",), resolver=resolver, previous=locked) == locked


# -- errors ---------------------------------------------------------------------------------------


def test_a_conflict_is_told_in_uvs_words(wheels: Path) -> None:
    make_wheel(wheels, "alpha", "1.0", requires=["beta>=2"])
    make_wheel(wheels, "beta", "1.0")
    make_wheel(wheels, "beta", "2.0")
    with pytest.raises(ModelbuildError) as caught:
        resolve("alpha", "beta<2")
    assert str(caught.value) == (
        "packages can't be resolved\n"
        "  uv says: Because all versions of alpha depend on beta>=2 and you require alpha, we can "
        "conclude that you require beta>=2.\n"
        "           And because you require beta<2, we can conclude that your requirements are "
        "unsatisfiable."
    )


@both_resolvers
def test_a_package_that_is_nowhere_is_named(resolver: str, wheels: Path) -> None:
    with pytest.raises(ModelbuildError, match="can't be resolved") as caught:
        resolve("no-such-package", resolver=resolver)
    assert "no-such-package" in str(caught.value)


def test_an_index_that_cannot_be_reached_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_packages_from(monkeypatch, uv_cache=tmp_path)
    with pytest.raises(ModelbuildError) as caught:
        resolve("alpha")
    assert str(caught.value) == (
        "packages can't be resolved: an index can't be reached, and what it has is not cached\n"
        "  uv says: Failed to fetch: http://127.0.0.1:9/simple/alpha/\n"
        "           error sending request for url (http://127.0.0.1:9/simple/alpha/)\n"
        "           client error (Connect)\n"
        "           tcp connect error\n"
        "           Connection refused (os error 111)\n"
        "Check the network, and the indexes of pip's and uv's configuration."
    )


@pytest.mark.slow
def test_passwords_open_an_index_and_are_never_shown(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, "alpha", "1.0")
    make_wheel(wheels, "broken", "1.0", tag=f"{CP}-{CP}-macosx_14_0_arm64")
    with LocalIndex(wheels, user="me@work", password="s3cret/@") as index:
        only_packages_from(
            monkeypatch, index_url=index.url_with_credentials, uv_cache=tmp_path / "other"
        )
        assert versions(resolve("alpha")) == {"alpha": "1.0"}
        assert versions(resolve("alpha", resolver="pip-tools")) == {"alpha": "1.0"}
        for requirement in ("broken", "alpha>2", "absent"):
            for resolver in ("uv", "pip-tools"):
                with pytest.raises(ModelbuildError) as caught:
                    resolve(requirement, resolver=resolver)
                assert "s3cret" not in str(caught.value)
                assert "me%40work" not in str(caught.value)


def test_what_uv_says_is_shown_without_credentials() -> None:
    question = Question(requires=(), python="3.11.7", platform="x86_64-manylinux_2_28")
    error = resolution_error("error: bad index: https://me:s3cret@host/simple\n", question)
    assert str(error) == "packages can't be resolved\n  uv says: bad index: https://host/simple"


# -- pip-tools ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("place", ["folder", "index", "index without hashes"])
def test_both_resolvers_lock_the_same(
    place: str, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(
        wheels,
        "Alpha.One",
        "1.0",
        requires=["beta[extra]>=1", "windows; sys_platform=='win32'"],
        tag=f"{CP}-{CP}-manylinux_2_17_x86_64",
    )
    make_wheel(wheels, "Alpha.One", "1.0", requires=["beta[extra]"])
    make_wheel(wheels, "Alpha.One", "1.1", tag=f"{CP}-{CP}-manylinux_2_34_x86_64")
    make_wheel(
        wheels, "beta", "1.0", requires=["gamma; extra=='extra'"], headers=["Provides-Extra: extra"]
    )
    make_wheel(wheels, "gamma", "2.0+cpu")
    make_wheel(wheels, "gamma", "2.0")
    make_sdist(wheels, "gamma", "3.0")
    make_wheel(wheels, "setuptools", "80.0")
    requires = ("alpha-one", "gamma==2.0", "setuptools")
    if place == "folder":
        locked = resolve(*requires)
        assert resolve(*requires, resolver="pip-tools") == locked
    else:
        with LocalIndex(wheels, hashes=place == "index") as index:
            only_packages_from(monkeypatch, index_url=index.url, uv_cache=tmp_path / "other")
            locked = resolve(*requires)
            assert resolve(*requires, resolver="pip-tools") == locked
            assert resolve(*requires, resolver="pip-tools", previous=locked) == locked
    assert versions(locked) == {
        "alpha-one": "1.0",
        "beta": "1.0",
        "gamma": "2.0+cpu",
        "setuptools": "80.0",
    }


@pytest.mark.slow
def test_pip_tools_keeps_what_is_locked(wheels: Path) -> None:
    make_wheel(wheels, "alpha", "1.0", requires=["beta"])
    make_wheel(wheels, "beta", "1.0")
    before = resolve("alpha", resolver="pip-tools")
    make_wheel(wheels, "alpha", "2.0", requires=["beta"])
    make_wheel(wheels, "beta", "2.0")
    assert resolve("alpha", resolver="pip-tools", previous=before) == before
    moved = resolve("alpha", resolver="pip-tools", previous=before, update=["beta"])
    assert versions(moved) == {"alpha": "1.0", "beta": "2.0"}
    assert versions(resolve("alpha>1", resolver="pip-tools", previous=before)) == {
        "alpha": "2.0",
        "beta": "1.0",
    }


def test_pip_tools_refuses_another_target_and_names_uv(wheels: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        resolve("alpha", resolver="pip-tools", platform="aarch64-manylinux_2_28")
    assert caught.value.exit_code == 8
    assert str(caught.value) == (
        "the resolver pip-tools resolves only for machines like this one\n"
        "  wanted: linux on aarch64\n"
        "  found:  linux on x86_64\n"
        'uv resolves for any target: under [environment] write resolver = "uv"'
    )


def test_pip_tools_without_the_targets_python_names_uv(wheels: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        resolve("alpha", resolver="pip-tools", python="3.4.99")
    assert caught.value.summary == "the resolver pip-tools needs a Python of the target's version"
    assert caught.value.facts[0] == ("wanted", "3.4.99")
    assert caught.value.hint is not None
    assert 'resolver = "uv"' in caught.value.hint


@both_resolvers
def test_pips_constraints_are_honoured(
    resolver: str, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(wheels, "alpha", "1.0")
    make_wheel(wheels, "alpha", "2.0")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("alpha<2\n")
    assert versions(resolve("alpha", resolver=resolver)) == {"alpha": "2.0"}
    monkeypatch.setenv("PIP_CONSTRAINT", str(constraints))
    assert versions(resolve("alpha", resolver=resolver)) == {"alpha": "1.0"}


# -- the declared device --------------------------------------------------------------------------


@pytest.fixture
def torches(wheels: Path) -> Path:
    """Stand-ins for torch: a CPU build, and a CUDA build that needs NVIDIA's libraries."""
    tag = f"{CP}-{CP}-manylinux_2_28_x86_64"
    make_wheel(wheels, "torch", "2.13.0", tag=tag, requires=["nvidia-cuda-runtime==13.0.96"])
    make_wheel(wheels, "nvidia-cuda-runtime", "13.0.96")
    return make_wheel(wheels, "torch", "2.13.0+cpu", tag=tag)


def test_a_cpu_recipe_gets_the_cpu_build(torches: Path) -> None:
    said: list[str] = []
    locked = resolve("torch==2.13.0", said=said)
    assert versions(locked) == {"torch": "2.13.0+cpu"}
    assert (locked.backend, said) == ("cpu", [])


def test_a_cuda_recipe_gets_the_cuda_build(torches: Path) -> None:
    before = resolve("torch==2.13.0")
    said: list[str] = []
    locked = resolve("torch==2.13.0", device=Device.CUDA, previous=before, said=said)
    assert versions(locked) == {"nvidia-cuda-runtime": "13.0.96", "torch": "2.13.0"}
    assert locked.backend == "cu130"


def test_a_cuda_build_where_no_cpu_build_can_be_had_is_locked_and_reported(
    torches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torches.unlink()
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    said: list[str] = []
    locked = resolve("torch==2.13.0", said=said)
    assert versions(locked) == {"nvidia-cuda-runtime": "13.0.96", "torch": "2.13.0"}
    (message,) = said
    assert message.startswith(
        'device = "cpu", but builds for another are locked: torch, nvidia-cuda-runtime ('
        "Failed to fetch: "
    )


def test_a_cuda_build_makes_a_cpu_recipe_ask_pytorchs_index_and_only_then() -> None:
    """That index is on the network, so a resolver that has read it stands in for uv."""
    asked: list[str | None] = []

    def torch_of(**by_backend: str) -> Callable[[Question], tuple[Release, ...]]:
        def resolver(question: Question) -> tuple[Release, ...]:
            asked.append(question.torch_backend)
            version = by_backend[question.torch_backend or "configured"]
            return (Release(name="torch", version=version, files=()),)

        return resolver

    def version(resolver: Callable[[Question], tuple[Release, ...]], machine: str) -> str:
        asked.clear()
        question = Question(
            requires=("torch",), python="3.11.7", platform=f"{machine}-manylinux_2_28"
        )
        (release,) = releases_for_device(resolver, question, Device.CPU, said.append)
        return release.version

    said: list[str] = []
    resolver = torch_of(configured="2.13.0", cpu="2.13.0+cpu")
    assert (version(resolver, "x86_64"), asked) == ("2.13.0+cpu", [None, "cpu"])
    assert (version(resolver, "aarch64"), asked) == ("2.13.0", [None])
    resolver = torch_of(configured="2.12.0+cpu", cpu="2.13.0+cpu")
    assert (version(resolver, "x86_64"), asked) == ("2.12.0+cpu", [None])
    assert said == []
    resolver = torch_of(configured="2.13.0+cu130", cpu="2.12.0")
    assert (version(resolver, "x86_64"), asked) == ("2.13.0+cu130", [None, "cpu"])
    assert said == [
        'device = "cpu", but builds for another are locked: torch (no other build is to be had)'
    ]


def test_the_backend_is_read_from_labels_and_libraries() -> None:
    def backend(**packages: str) -> str:
        return backend_of(
            [
                LockedWheel(
                    name=name.replace("_", "-"),
                    version=version,
                    filename="x.whl",
                    sha256="0",
                    bytes=1,
                    licence="MIT",
                )
                for name, version in packages.items()
            ]
        )

    assert backend(numpy="2.0") == "none"
    assert backend(torch="2.13.0+cpu") == "cpu"
    assert backend(torch="2.13.0") == "cpu"
    assert backend(torch="2.13.0+cu126") == "cu126"
    assert backend(torch="2.6.0+rocm6.4") == "rocm6.4"
    assert backend(torch="2.13.0", nvidia_cuda_runtime="13.0.96") == "cu130"
    assert backend(torch="2.6.0", nvidia_cuda_runtime_cu12="12.4.127") == "cu124"
    assert backend(xgboost="3.0", nvidia_nccl_cu12="2.27.3") == "cu12"


# -- the real indexes -----------------------------------------------------------------------------


@pytest.mark.network
def test_the_configured_indexes_give_the_cpu_build_of_torch(tmp_path: Path) -> None:
    requires = ("scikit-learn>=1.7", "torch==2.13.0")
    locked = resolve(*requires, python="3.11.7", cache=tmp_path)
    assert locked.backend == "cpu"
    assert versions(locked)["torch"] == "2.13.0+cpu"
    assert [name for name in versions(locked) if name.startswith("nvidia")] == []
    assert all(wheel.bytes > 1000 and wheel.licence != "unknown" for wheel in locked.wheels)

    assert resolve(*requires, python="3.11.7", cache=tmp_path, previous=locked) == locked
