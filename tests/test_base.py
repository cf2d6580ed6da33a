"""Environments on an interpreter that is there: locked by content, checked, nothing else seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import PYTHON, Tiny
from local_index import LocalIndex, make_wheel, only_packages_from

from modelbuild.environment.base import VARIABLE
from modelbuild.environment.indexes import uv_variables
from modelbuild.environment.interpreter import find_python
from modelbuild.review.packages import compare_packages
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedDistribution, LockedEnvironment
from modelbuild.store.store import Store

DEBIAN = Path("/usr/bin/python3")

RECIPE = """\
schema = 1

[model]
name = "based"

[environment]
python = "3.11"
base = "interpreter"
packages = ["alpha"]

[code]
include = ["*.py"]

[stages.train]
run = ["python", "train.py", "{out}"]
"""

TRAIN = """\
import importlib, json, sys

found = {}
for name in ("alpha", "beta", "stranger", "extra"):
    try:
        found[name] = importlib.import_module(name).version
    except ImportError as error:
        found[name] = str(error)
json.dump(found, open(sys.argv[1] + "/found.json", "w"))
"""


@dataclass(frozen=True)
class Base:
    """A virtual environment that stands for a vendor's image."""

    root: Path
    wheels: Path

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def packages(self) -> Path:
        return self.root / "lib" / f"python{PYTHON}" / "site-packages"

    def install(self, *requirements: str) -> None:
        uv("pip", "install", "--python", self.python, "--no-index", "--find-links", self.wheels,
           "--link-mode", "copy", *requirements)  # fmt: skip


def uv(*arguments: object) -> None:
    from uv import find_uv_bin

    command = [find_uv_bin(), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=uv_variables())
    assert done.returncode == 0, done.stderr


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels for an index, which can't be reached unless a test has it `served`."""
    folder = tmp_path / "index"
    folder.mkdir()
    only_packages_from(monkeypatch, uv_cache=tmp_path / "uv-cache")
    return folder


@pytest.fixture
def served(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with LocalIndex(index) as running:
        only_packages_from(monkeypatch, index_url=running.url, uv_cache=tmp_path / "uv-cache")
        yield index


def make_base(root: Path) -> Base:
    """With alpha, which requires beta, and with a stranger."""
    base = Base(root, root.parent / f"{root.name}-wheels")
    make_wheel(
        base.wheels,
        "alpha",
        "1.0",
        requires=["beta>=1", "gamma; extra == 'more'"],
        headers=["Provides-Extra: more"],
        files={
            "alpha/__init__.py": "version = '1.0'\n",
            "alpha/table.csv": "x,y\n1,2\n",
            "alpha-1.0.dist-info/entry_points.txt": "[console_scripts]\nalpha = alpha:main\n",
            "alpha-1.0.data/scripts/alpha-script": "#!python\nimport alpha\nprint(alpha)\n",
            "alpha-1.0.data/data/share/alpha.txt": "shared\n",
        },
    )
    make_wheel(base.wheels, "beta", "1.0")
    make_wheel(base.wheels, "stranger", "1.0")
    uv("venv", "--python", find_python(PYTHON).executable, root)
    base.install("alpha", "stranger")
    return base


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return make_base(tmp_path_factory.mktemp("made") / "image")


@pytest.fixture
def base(image: Base, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    """The base interpreter of this machine, for a test to change."""
    base = Base(tmp_path / "image", tmp_path / "image-wheels")
    shutil.copytree(image.root, base.root, symlinks=True)
    shutil.copytree(image.wheels, base.wheels)
    monkeypatch.setenv(VARIABLE, str(base.python))
    return base


@pytest.fixture
def based(base: Base, tmp_path: Path, store: Store) -> Tiny:
    """A workspace on it."""
    workspace = Tiny(tmp_path / "workspace")
    workspace.write("recipe.toml", RECIPE)
    workspace.write("train.py", TRAIN)
    return workspace


def environment(workspace: Tiny) -> dict:
    (locked,) = tomllib.loads((workspace.root / "model.lock").read_text())["environments"].values()
    return locked


def found(stages: dict) -> dict[str, str]:
    return json.loads((Path(stages["train"]["path"]) / "found.json").read_text())


def fails(workspace: Tiny, code: int, *arguments: str, **variables: str) -> str:
    ran = workspace.run(*arguments, **variables)
    assert ran.code == code, ran.err
    return ran.err[ran.err.index("error: ") :]


# What a stage gets


def test_what_the_base_has_is_locked_and_used_without_any_index(based: Tiny) -> None:
    stages = based.build()
    assert found(stages) == {
        "alpha": "1.0",
        "beta": "1.0",
        "stranger": "No module named 'stranger'",
        "extra": "No module named 'extra'",
    }
    locked = environment(based)
    assert locked["base"] == "interpreter"
    assert "packages" not in locked
    assert {name: each["version"] for name, each in locked["distributions"].items()} == {
        "alpha": "1.0",
        "beta": "1.0",
    }
    assert locked["distributions"]["alpha"]["files"] == 8
    assert locked["distributions"]["alpha"]["licence"] == "MIT"


def test_without_a_sandbox_a_stage_gets_the_same(based: Tiny) -> None:
    assert found(based.build("--isolation", "none")) == found(based.build())


def test_scripts_and_shared_files_of_the_base_are_in_the_environment(based: Tiny) -> None:
    based.write("train.py", "import sys\nopen(sys.argv[1] + '/share', 'w').write("
                "open(sys.prefix + '/share/alpha.txt').read())\n")  # fmt: skip
    based.replace("recipe.toml", '["python", "train.py", "{out}"]',
                  '["sh", "-c", "python train.py {out} && alpha-script > {out}/said"]')  # fmt: skip
    output = Path(based.build()["train"]["path"])
    assert (output / "share").read_text() == "shared\n"
    assert "/build/env/lib" in (output / "said").read_text()


def test_what_the_base_lacks_is_installed_on_top_and_fits_it(based: Tiny, served: Path) -> None:
    make_wheel(served, "extra", "3.0", requires=["beta<3"], files={"extra.py": "version = '3.0'\n"})
    make_wheel(served, "beta", "2.0")  # newer than the base's, which is fixed
    based.replace("recipe.toml", '["alpha"]', '["alpha", "extra"]')
    assert found(based.build()) == {
        "alpha": "1.0",
        "beta": "1.0",
        "stranger": "No module named 'stranger'",
        "extra": "3.0",
    }
    assert list(environment(based)["packages"]) == ["extra"]
    assert list(environment(based)["distributions"]) == ["alpha", "beta"]


def test_an_extra_that_the_base_lacks_comes_from_the_index(based: Tiny, served: Path) -> None:
    make_wheel(served, "gamma", "1.0")
    based.replace("recipe.toml", '["alpha"]', '["alpha[more]"]')
    assert based.run("lock").code == 0
    assert list(environment(based)["packages"]) == ["gamma"]


def test_the_same_distributions_elsewhere_give_the_same_lock(
    based: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert based.run("lock").code == 0
    first = (based.root / "model.lock").read_bytes()
    (based.root / "model.lock").unlink()
    other = make_base(tmp_path / "another place with quite a long name and with spaces")
    subprocess.run([other.python, "-m", "compileall", "-q", other.packages], check=True)
    with (other.packages / "alpha-1.0.dist-info" / "RECORD").open("a") as record:
        record.write("alpha/__pycache__/__init__.cpython-311.pyc,,\n")  # as pip does
    monkeypatch.setenv(VARIABLE, str(other.python))
    assert based.run("lock").code == 0
    assert (based.root / "model.lock").read_bytes() == first


def test_data_of_a_package_may_come_from_the_base(based: Tiny) -> None:
    text = (based.root / "recipe.toml").read_text()
    data = '[data.table]\npackage = "alpha"\nfile = "alpha/table.csv"\n'
    based.write("recipe.toml", text.replace('"{out}"]', '"{out}", "{data.table}"]') + data)
    based.write("train.py", "import shutil, sys\nshutil.copy(sys.argv[2], sys.argv[1])\n")
    output = Path(based.build()["train"]["path"])
    assert (output / "table.csv").read_text() == "x,y\n1,2\n"


# What has changed


def digests(workspace: Tiny, name: str) -> str:
    locked = environment(workspace)["distributions"][name]
    return f"{locked['version']}  {locked['digest']}"


def test_a_changed_byte_is_named_by_each_command_until_it_is_asked_for(
    based: Tiny, base: Base
) -> None:
    based.build()
    before = digests(based, "alpha")
    (base.packages / "alpha" / "table.csv").write_text("x,y\n1,3\n")
    message = fails(based, 5, "lock")
    assert fails(based, 5, "verify").startswith(message.splitlines()[0])
    based.replace("train.py", "found = {}", "found = {'n': 1}")
    assert fails(based, 5, "build") == message
    assert based.run("lock", "--update", "alpha").code == 0
    after = digests(based, "alpha")
    assert before != after
    assert message == (
        "error: digest mismatch in 'alpha' of the base interpreter\n"
        f"  locked:      {before}\n"
        f"  found:       {after}\n"
        f"  interpreter: {base.python}\n"
        "If the change is intended: modelbuild lock --update alpha\n"
    )
    based.build()


def test_another_version_is_named(based: Tiny, base: Base) -> None:
    assert based.run("lock").code == 0
    before = digests(based, "beta")
    make_wheel(base.wheels, "beta", "1.1")
    base.install("beta==1.1")
    message = fails(based, 5, "build")
    assert based.run("lock", "--update", "base").code == 0
    after = digests(based, "beta")
    assert after.startswith("1.1  b3:")
    assert message == (
        "error: digest mismatch in 'beta' of the base interpreter\n"
        f"  locked:      {before}\n"
        f"  found:       {after}\n"
        f"  interpreter: {base.python}\n"
        "If the change is intended: modelbuild lock --update beta\n"
    )


def test_a_distribution_that_is_gone_is_named_and_not_taken_from_an_index(
    based: Tiny, base: Base, served: Path
) -> None:
    assert based.run("lock").code == 0
    alpha, beta = digests(based, "alpha"), digests(based, "beta")
    make_wheel(served, "beta", "1.0")
    (base.packages / "alpha" / "table.csv").unlink()
    uv("pip", "uninstall", "--python", base.python, "beta")
    assert fails(based, 5, "lock") == (
        "error: digest mismatch in 'alpha' of the base interpreter\n"
        f"  locked:      {alpha}\n"
        f"  found:       {fails_found(based)}\n"
        "  also:        beta\n"
        f"  interpreter: {base.python}\n"
        "If the change is intended: modelbuild lock --update alpha beta\n"
    )
    assert fails(based, 5, "lock", "--update", "alpha") == (
        "error: digest mismatch in 'beta' of the base interpreter\n"
        f"  locked:      {beta}\n"
        "  found:       not there\n"
        f"  interpreter: {base.python}\n"
        "If the change is intended: modelbuild lock --update beta\n"
    )
    ran = based.run("lock", "--update", "base")
    assert ran.code == 0
    assert "alpha of the base interpreter requires beta>=1, which it lacks\n" in ran.err
    assert list(environment(based)["distributions"]) == ["alpha"]


def fails_found(workspace: Tiny) -> str:
    """What `lock` says that it found."""
    return fails(workspace, 5, "lock").split("found:       ")[1].splitlines()[0]


def test_what_is_valid_is_not_built_again_and_asks_for_no_interpreter(based: Tiny) -> None:
    based.build()
    stages = based.build(**{VARIABLE: "/nowhere/python"})
    assert stages["train"]["how"] == "valid"


# What is refused


def test_a_requirement_of_another_version_is_an_error(
    based: Tiny, base: Base, served: Path
) -> None:
    make_wheel(served, "beta", "2.0")
    based.replace("recipe.toml", '["alpha"]', '["alpha", "beta>=2"]')
    assert fails(based, 3, "lock") == (
        "error: recipe.toml:6: the base interpreter has another 'beta' than is required\n"
        "  wanted: beta>=2\n"
        f"  found:  1.0  ({base.python})\n"
        "What the base has is taken as it is, and no wheel takes its place: require that version, "
        "change it there, or use another interpreter.\n"
    )


def test_a_wheel_that_does_not_fit_the_base_is_an_error(based: Tiny, served: Path) -> None:
    make_wheel(served, "extra", "3.0", requires=["beta>=2"])
    make_wheel(served, "beta", "2.0")
    based.replace("recipe.toml", '["alpha"]', '["alpha", "extra"]')
    message = fails(based, 1, "lock")
    assert message.startswith("error: packages can't be resolved\n")
    assert "only beta<2 is available and all versions of extra depend on beta>=2" in (
        " ".join(message.split())
    )
    assert message.endswith(
        "What the base interpreter has is taken as it is, and no wheel takes its place.\n"
    )


def test_an_editable_install_is_refused_by_name(based: Tiny, base: Base) -> None:
    info = base.packages / "alpha-1.0.dist-info"
    origin = {"url": "file:///elsewhere", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    assert fails(based, 8, "lock") == (
        "error: 'alpha' of the base interpreter can't be locked\n"
        f"  distribution: {info}\n"
        "  because:      it is installed as editable, from a folder elsewhere\n"
        "Install it there as a wheel: pip install --force-reinstall --no-deps alpha. Modules of "
        "your own belong under [code].\n"
    )


def test_an_editable_install_that_nothing_needs_does_not_matter(based: Tiny, base: Base) -> None:
    info = base.packages / "stranger-1.0.dist-info"
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    assert based.run("lock").code == 0


def test_files_that_no_record_lists_are_told_by_the_modules_named(based: Tiny, base: Base) -> None:
    info = base.packages / "alpha-1.0.dist-info"
    (info / "RECORD").unlink()
    assert fails(based, 8, "lock") == (
        "error: 'alpha' of the base interpreter can't be locked\n"
        f"  distribution: {info}\n"
        "  because:      it has no list of its files\n"
        "Install it there as a wheel: pip install --force-reinstall --no-deps alpha. Modules of "
        "your own belong under [code].\n"
    )
    (info / "top_level.txt").write_text("alpha\n")
    assert found(based.build())["alpha"] == "1.0"


def test_another_python_is_refused(based: Tiny, base: Base) -> None:
    based.replace("recipe.toml", 'python = "3.11"', 'python = "3.10"')
    version = find_python(PYTHON).version
    assert fails(based, 8, "lock") == (
        "error: the base interpreter is another Python than the recipe's\n"
        "  wanted: CPython 3.10\n"
        f"  found:  CPython {version}  ({base.python})\n"
        "To name another one, write these lines into modelbuild/config.toml in $XDG_CONFIG_HOME "
        "or ~/.config:\n"
        "  [locations]\n"
        '  interpreter = "/path/to/bin/python3"\n'
        f"or set {VARIABLE}=/path/to/bin/python3\n"
    )


def test_a_machine_without_the_interpreter_is_refused(based: Tiny) -> None:
    message = fails(based, 8, "lock", **{VARIABLE: "/nowhere/python"})
    assert message.startswith(
        "error: the base interpreter is not on this machine: there is no program at "
        "/nowhere/python\nTo name another one, write these lines"
    )
    assert based.run("lock").code == 0
    assert fails(based, 8, "build", **{VARIABLE: "/nowhere/python"}) == message


def test_the_first_python3_on_the_path_is_the_base_where_none_is_named(
    based: Tiny, base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE)
    folder = base.root / "bin"
    assert based.run("lock", PATH=f"{folder}:/usr/bin:/bin").code == 0
    assert list(environment(based)["distributions"]) == ["alpha", "beta"]


# Real ones


@pytest.fixture
def debian(index: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name and import of something that the distribution's own Python has."""
    if not DEBIAN.exists() or not shutil.which("dpkg"):
        pytest.skip("no Python of Debian here")
    version = subprocess.run(
        [DEBIAN, "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2]); import yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    if version.returncode != 0:
        pytest.skip("Debian's Python has no yaml here")
    monkeypatch.setenv(VARIABLE, str(DEBIAN))
    return version.stdout.strip()


def test_debians_python_does_as_a_base(debian: str, tmp_path: Path, store: Store) -> None:
    workspace = Tiny(tmp_path / "workspace")
    text = RECIPE.replace('"alpha"', '"pyyaml"').replace('"3.11"', f'"{debian}"')
    workspace.write("recipe.toml", text)
    workspace.write("train.py", "import sys, yaml\nopen(sys.argv[1] + '/where', 'w').write("
                    "yaml.__file__ + yaml.safe_dump([1]))\n")  # fmt: skip
    output = Path(workspace.build()["train"]["path"])
    site = f"/build/env/lib/python{debian}/site-packages"
    assert (output / "where").read_text() == f"{site}/yaml/__init__.py- 1\n"


def test_libraries_of_the_system_that_a_base_may_be_linked_to_are_there(based: Tiny) -> None:
    based.write("train.py", "import json, os, sys\njson.dump(sorted(os.listdir('/usr/local')), "
                "open(sys.argv[1] + '/found.json', 'w'))\n")  # fmt: skip
    assert found(based.build()) == sorted(os.listdir("/usr/local"))


@pytest.mark.slow
@pytest.mark.network
def test_torch_comes_from_the_base_without_any_index(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = Base(tmp_path / "image", tmp_path)
    uv("venv", "--python", find_python(PYTHON).executable, base.root)
    uv("pip", "install", "--python", base.python, "torch==2.13.0", "numpy")
    only_packages_from(monkeypatch)
    monkeypatch.setenv(VARIABLE, str(base.python))
    workspace = Tiny(tmp_path / "workspace")
    workspace.write("recipe.toml", RECIPE.replace('"alpha"', '"torch"'))
    workspace.write("train.py", "import sys, torch\ntorch.manual_seed(0)\n"
                    "torch.save(torch.nn.Linear(2, 1), sys.argv[1] + '/model.pt')\n")  # fmt: skip
    assert workspace.build()["train"]["how"] == "built"
    assert environment(workspace)["backend"] == "cpu"
    assert "torch" in environment(workspace)["distributions"]


# What reviewers see


def test_a_distribution_that_moved_is_a_changed_package() -> None:
    def environment_with(digit: str) -> LockedEnvironment:
        beta = LockedDistribution(
            name="beta",
            version="1.0",
            digest=Digest(digit * 64),
            files=1,
            bytes=1,
            licence="MIT",
        )
        return LockedEnvironment(
            python="3.11.7",
            platform="x86_64-manylinux_2_28",
            backend="none",
            wheels=(),
            base="interpreter",
            distributions=(beta,),
        )

    one, two = environment_with("1"), environment_with("2")
    assert one.key != two.key
    assert compare_packages(one, one) == ()
    (change,) = compare_packages(one, two)
    assert (change.name, change.kind, change.new) == ("beta", "other file", two.distributions[0])
