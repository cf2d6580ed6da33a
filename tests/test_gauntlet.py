"""Small trainings that nobody changed, each of which leaves one thing to chance.

Each is built as a stage of one recipe, and built again (`verify --rebuild`) by another user's
hands: other variables, processors, limits, time, working folder and file system. The table in
docs/determinism.md says what comes of each.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Tiny, share_interpreter
from sandbox_stage import RUNTIME

from modelbuild.build.stage import isolation_sandbox
from modelbuild.sandbox.isolation import Command, Isolation, Mounts
from modelbuild.sandbox.shipped_runtime import preload_library
from modelbuild.spec.recipe import Determinism, Hardware
from modelbuild.spec.variables import stage_variables
from modelbuild.store.store import remove_tree

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/determinism.md"
GROUPS = {
    "plain": [],
    "frameworks": ["torch==2.13.0", "numpy", "scikit-learn", "lightgbm", "xgboost-cpu", "jax"],
}
ANOTHER_CALLER = {
    "HOME": "/",
    "USER": "somebody",
    "LR": "0.7",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "C",
    "TZ": "Asia/Tokyo",
    "PYTHONHASHSEED": "77",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Prescott",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2",
    "MODELBUILD_SEED": "5",
}

pytestmark = pytest.mark.skipif(
    not preload_library().exists(), reason="modelbuild was installed without a C compiler"
)


def scripts(group: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((HERE / "gauntlet" / group).iterdir())}


def documented() -> dict[str, str]:
    """The outcomes of the table: `identical`, or `different: ` and the cause."""
    section = PAGE.read_text().partition("\n## The gauntlet\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| .* \| ([^|]+) \|", section, re.MULTILINE)
    return {name.partition(".")[0]: outcome for name, outcome in rows}


def write_workspace(root: Path, group: str, *, backwards: bool) -> Tiny:
    """The same content however it is written; the order of the files in a folder is not."""
    workspace = Tiny(root)
    names = sorted(f"{number * 7919 % 1000}.txt" for number in range(40))
    for name in reversed(names) if backwards else names:
        workspace.write(f"samples/{name}", f"0.{name[:-4]}")
    found = scripts(group)
    for path in reversed(found.values()) if backwards else found.values():
        workspace.write(path.name, path.read_text())
    stages = [
        f'[stages.{name}]\nrun = ["{"sh" if path.suffix == ".sh" else "python"}", "{path.name}",'
        ' "{out}", "{data.samples}"]\n'
        for name, path in found.items()
    ]
    code = [path.name for path in found.values()]
    text = RECIPE.format(packages=GROUPS[group], code=code, stages="\n".join(stages))
    workspace.write("recipe.toml", text)
    return workspace


RECIPE = """\
schema = 1

[model]
name = "gauntlet"

[environment]
python = "3.11"
packages = {packages}

[code]
include = {code}

[data.samples]
path = "samples"

[hardware]
threads = 3

[determinism]
seed = 7

{stages}"""


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another file system, where there is one: it lists files in another order."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(folder) / "another" / "place"


@dataclass
class Built:
    """The first build of a group."""

    workspace: Tiny
    store: Path

    def object(self, kind: str) -> Path:
        """What the build made for its sandboxes: `env`, `cpython`."""
        (path,) = (self.store / "objects").glob(f"*-{kind}-*")
        return path


@pytest.fixture(scope="module")
def first_build(
    tmp_path_factory: pytest.TempPathFactory, interpreter_object: Path
) -> Iterator[Callable[[str], Built]]:
    made: dict[str, Built] = {}

    def build(group: str) -> Built:
        if group not in made:
            folder = tmp_path_factory.mktemp(group)
            share_interpreter(folder / "store", interpreter_object)
            workspace = write_workspace(folder / "here", group, backwards=False)
            made[group] = Built(workspace, folder / "store")
            workspace.build("recipe.toml", MODELBUILD_STORE=str(folder / "store"))
        return made[group]

    yield build
    for each in made.values():
        remove_tree(each.store)


each_group = pytest.mark.parametrize(
    "group",
    ["plain", pytest.param("frameworks", marks=[pytest.mark.slow, pytest.mark.network])],
)


@each_group
def test_every_training_gives_the_same_bits_or_is_told_apart(
    group: str, first_build: Callable[[str], Built], elsewhere: Path
) -> None:
    here = first_build(group)
    there = write_workspace(elsewhere, group, backwards=True)
    shutil.copy(here.workspace.root / "model.lock", there.root)
    verify = shlex.join([*there.command("verify", "--rebuild", "--json", str(there.root))])
    limits = "umask 077; ulimit -S -n 300; ulimit -s unlimited"
    done = subprocess.run(
        ["sh", "-c", f"{limits}; exec taskset -c 0 {verify}"],
        cwd=there.root / "samples",
        env={**os.environ, **ANOTHER_CALLER, "MODELBUILD_STORE": str(here.store)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 7), done.stderr
    stages = json.loads(done.stdout)["recipes"]["gauntlet"]["stages"]
    expected = {name: documented()[name].partition(":")[0] for name in scripts(group)}
    assert {name: stage["rebuild"] for name, stage in stages.items()} == expected


def test_the_page_names_every_script_and_the_cause_of_every_difference() -> None:
    assert documented().keys() == {name for group in GROUPS for name in scripts(group)}
    for outcome in documented().values():
        assert re.fullmatch(r"identical|different: .+", outcome)


def test_the_scripts_know_nothing_of_modelbuild() -> None:
    for group in GROUPS:
        for path in scripts(group).values():
            assert "modelbuild" not in path.read_text().lower(), path
            assert len(path.read_text().splitlines()) <= 40


# Each pin, taken away: without it the script comes out different, or finds that children repeat


SYSTEM_RANDOM = ("bootstrap.py", "os.urandom = os.getrandom = lineage.random_bytes", "pass")
RANDOM = ("bootstrap.py", '"random", "numpy"', '"numpy"')
NUMPY = ("pins.py", "module.seed(lineage.starting_seed())", "pass")
AT_FORK = "os.register_at_fork(after_in_parent=lineage.next_child, after_in_child=lineage.forked)"
PROCESSORS = ("bootstrap.py", "    pin_processors(threads)\n", "")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
OLDER = {"TORCHINDUCTOR_CPP_MARCH": "x86-64-v2", "ATEN_CPU_CAPABILITY": "default"}
ADDRESSES = ("init.py", "libc.personality(ADDR_NO_RANDOMIZE)", "libc.personality(0)")


@dataclass(frozen=True, kw_only=True)
class Broken:
    """One script, and what is changed to let chance in."""

    script: str
    edits: Sequence[tuple[str, str, str]] = ()
    """File of the runtime, a text in it, another one."""
    preload: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, str] = field(default_factory=dict)
    """Variables of the second run only: as if they were inherited."""
    isolation: Isolation = Isolation.FULL


BROKEN = [
    Broken(script="hash_order", variables={"PYTHONHASHSEED": "random"}),
    Broken(script="object_order", edits=[ADDRESSES], preload=True),
    Broken(
        script="listing_order", edits=[("bootstrap.py", "    pin_listings()\n", "")], preload=True
    ),
    Broken(script="unseeded_random", edits=[RANDOM]),
    Broken(script="system_random", edits=[SYSTEM_RANDOM]),
    Broken(script="device_random"),
    Broken(script="processors", edits=[PROCESSORS]),
    Broken(script="identity", isolation=Isolation.NONE, preload=True),
    Broken(script="locale_and_time_zone", second={"TZ": "Asia/Tokyo"}, preload=True),
    Broken(script="inherited", second={"LR": "0.7"}, preload=True),
    Broken(script="forked", edits=[("bootstrap.py", AT_FORK, "pass")], preload=True),
    Broken(
        script="spawned", edits=[("pins.py", "self.lineage.next_child()", "pass")], preload=True
    ),
    Broken(script="shell"),
    Broken(script="isolated_python"),
    Broken(script="unseeded_numpy", edits=[SYSTEM_RANDOM]),
    Broken(script="seed_from_the_system"),
    Broken(script="loader_workers", edits=[PROCESSORS]),
    Broken(
        script="scattered_gradients",
        edits=[("torch_knobs.py", "switch(True, warn_only=warn_only)", "switch(False)")],
        preload=True,
    ),
    Broken(script="threads", second=ONE_THREAD, preload=True),
    Broken(script="compiled", second=OLDER, preload=True),
    Broken(script="forest", edits=[SYSTEM_RANDOM, NUMPY]),
    Broken(script="jax_network", second={"XLA_FLAGS": "--xla_cpu_max_isa=SSE4_2"}, preload=True),
]


def group_of(script: str) -> str:
    return next(group for group in GROUPS if script in scripts(group))


def run_broken(broken: Broken, built: Built, folder: Path, *, second: bool) -> dict[str, bytes]:
    """What the script leaves in its output; nothing where it fails."""
    path = scripts(group_of(broken.script))[broken.script]
    ignored = () if broken.preload else ("preload-*",)
    shutil.copytree(RUNTIME, folder / "runtime", ignore=shutil.ignore_patterns(*ignored))
    for name, before, after in broken.edits:
        file = folder / "runtime" / name
        assert before in file.read_text()
        file.write_text(file.read_text().replace(before, after))
    workspace = write_workspace(folder / "code", group_of(broken.script), backwards=second)
    for name in ("out", "trace"):
        (folder / name).mkdir()
    (folder / "context.json").write_text("{}")
    mounts = Mounts(
        src=workspace.root,
        environment=built.object("env"),
        interpreter=built.object("cpython"),
        runtime=folder / "runtime",
        out=folder / "out",
        trace=folder / "trace",
        context=folder / "context.json",
        data={"samples": workspace.root / "samples"},
    )
    variables = stage_variables(Hardware(threads=3), Determinism(seed=7)) | broken.variables
    program = "sh" if path.suffix == ".sh" else "python"
    command = Command(
        argv=[program, path.name, "/build/out", "/build/data/samples"],
        environment=variables | broken.second if second else variables,
        threads=3,
    )
    outcome = isolation_sandbox(broken.isolation).run(mounts, command, lambda _: None)
    if outcome.exit_code:
        return {}
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(
            each,
            id=each.script,
            marks=[pytest.mark.network] if group_of(each.script) != "plain" else [],
        )
        for each in BROKEN
    ],
)
def test_without_its_pin_a_training_comes_out_different(
    broken: Broken, first_build: Callable[[str], Built], tmp_path: Path, elsewhere: Path
) -> None:
    built = first_build(group_of(broken.script))
    (tmp_path / "run").mkdir()
    one = run_broken(broken, built, tmp_path / "run", second=False)
    allowed = os.sched_getaffinity(0)
    elsewhere.mkdir(parents=True)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        other = run_broken(broken, built, elsewhere, second=True)
    finally:
        os.sched_setaffinity(0, allowed)
    assert not one or one != other


def test_every_script_is_identical_by_a_pin_or_known_to_need_none() -> None:
    """torch's own first seed is a constant; the trees' bits were the same with any threads."""
    identical = {name for name, outcome in documented().items() if outcome == "identical"}
    need_none = {"unseeded_torch", "xgboost_trees", "lightgbm_trees"}
    assert {each.script for each in BROKEN} | need_none == identical
