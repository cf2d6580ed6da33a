"""What the bootstrap and the variables of a stage pin, in real Python processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

import modelbuild.runtime
from modelbuild.environment.indexes import uv_variables
from modelbuild.spec.recipe import Determinism, Device, Hardware
from modelbuild.spec.variables import BOOTSTRAP_LINE, stage_variables

RUNTIME = Path(modelbuild.runtime.__file__).parent / "v1"
SEED = 42

DRAW = """
import os, random, secrets, uuid
import numpy as np
values = [
    random.random(), random.Random().random(), random.SystemRandom().random(),
    os.urandom(8).hex(), os.getrandom(8).hex(), str(uuid.uuid4()), secrets.token_hex(4),
    float(np.random.rand()), float(np.random.default_rng().random()),
    float(np.random.RandomState().rand()),
]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """An environment in which Python runs as in a stage, less the sandbox."""

    root: Path
    python: Path

    def run(
        self,
        *arguments: str,
        pinned: bool = True,
        cwd: Path | None = None,
        hardware: Hardware | None = None,
        determinism: Determinism | None = None,
        more: Mapping[str, str] | None = None,
        emulator: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        variables = stage_variables(hardware or Hardware(), determinism or Determinism(seed=SEED))
        variables["MODELBUILD_ROOT"] = str(self.root if pinned else self.root / "no-bootstrap")
        return subprocess.run(
            [*emulator, self.python, *arguments],
            env=variables | dict(more or {}),
            cwd=cwd or self.root,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def output(self, code: str, **options: object) -> str:
        """What a script prints."""
        done = self.run("-c", code, **options)  # type: ignore[arg-type]
        assert done.returncode == 0, done.stderr
        return done.stdout

    def value(self, code: str, **options: object) -> object:
        """What the expression in the script's last line is."""
        *before, last = code.strip().splitlines()
        shown = f"import json; print(json.dumps({last}))"
        return json.loads(self.output("\n".join([*before, shown]), **options))


def make_stage(root: Path) -> Stage:
    root.mkdir()
    venv.create(root / "env", symlinks=True, with_pip=False)
    python = root / "env/bin/python"
    (packages(root) / "modelbuild.pth").write_text(BOOTSTRAP_LINE + "\n")
    (root / "runtime").symlink_to(RUNTIME)
    return Stage(root=root, python=python)


def packages(root: Path) -> Path:
    return next((root / "env/lib").glob("python*/site-packages"))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """With the packages of this test's own environment: numpy and pytest."""
    made = make_stage(tmp_path_factory.mktemp("stage") / "root")
    (packages(made.root) / "tests.pth").write_text(str(Path(np.__file__).parent.parent) + "\n")
    return made


# Variables


def test_variables_follow_from_the_recipe_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = stage_variables(Hardware(), Determinism())
    for name, value in {
        "OPENBLAS_CORETYPE": "Prescott",
        "OMP_NUM_THREADS": "7",
        "PYTHONHASHSEED": "3",
        "TZ": "Asia/Tokyo",
        "HOME": "/elsewhere",
        "LC_ALL": "tr_TR.UTF-8",
        "WANDB_MODE": "on",
    }.items():
        monkeypatch.setenv(name, value)
    assert stage_variables(Hardware(), Determinism()) == before
    assert before["OPENBLAS_CORETYPE"] == "Haswell"
    assert before["PYTHONHASHSEED"] == "0"


def test_every_library_hears_of_the_threads() -> None:
    variables = stage_variables(Hardware(threads=3), Determinism())
    counted = sorted(name for name, value in variables.items() if value == "3")
    assert counted == [
        *("BLIS_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "MKL_NUM_THREADS", "MODELBUILD_THREADS"),
        *("NPROC", "NUMBA_NUM_THREADS", "NUMEXPR_MAX_THREADS", "NUMEXPR_NUM_THREADS"),
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS", "PYTHON_CPU_COUNT"),
        "RAYON_NUM_THREADS",
    ]


def test_each_instruction_set_has_variables_of_its_own() -> None:
    each = [
        stage_variables(Hardware(cpu=cpu), Determinism())
        for cpu in ("x86-64-v2", "x86-64-v3", "x86-64-v4", "native")
    ]
    assert [one["MKL_CBWR"] for one in each] == ["SSE4_2", "AVX2,STRICT", "AVX512,STRICT", "AUTO"]
    assert [one.get("ONEDNN_MAX_CPU_ISA") for one in each] == ["SSE41", "AVX2", "AVX512_CORE", None]
    assert "OPENBLAS_CORETYPE" not in each[-1]


def test_mkl_is_patched_unless_the_recipe_or_a_native_cpu_says_no() -> None:
    def mkl(hardware: Hardware) -> str:
        return stage_variables(hardware, Determinism())["MODELBUILD_MKL"]

    assert mkl(Hardware()) == "patched"
    assert mkl(Hardware(mkl="unchanged")) == "unchanged"
    assert mkl(Hardware(cpu="native")) == "unchanged"


def test_a_recipe_for_a_cpu_sees_no_gpu_and_one_for_cuda_is_deterministic() -> None:
    assert stage_variables(Hardware(), Determinism())["CUDA_VISIBLE_DEVICES"] == ""
    hardware = Hardware(device=Device.CUDA, gpus=1)
    variables = stage_variables(hardware, Determinism())
    assert variables["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert "CUDA_VISIBLE_DEVICES" not in variables
    assert "NVIDIA_TF32_OVERRIDE" not in variables
    assert stage_variables(hardware, Determinism(tf32="false"))["NVIDIA_TF32_OVERRIDE"] == "0"


@pytest.mark.parametrize(
    ("cpu", "kept"), [("x86-64-v2", set()), ("x86-64-v3", {"X86_V3", "AVX2", "FMA3"})]
)
def test_numpy_keeps_no_instructions_above_the_cap(stage: Stage, cpu: str, kept: set[str]) -> None:
    code = """
    from numpy._core import _multiarray_umath as core
    [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]
    """.replace("    ", "")
    found = stage.value(code, hardware=Hardware(cpu=cpu))
    assert isinstance(found, list)
    beyond_sse = {name for name in found if not name.startswith(("SSE", "SSSE", "POPCNT"))}
    assert beyond_sse <= kept | {"AVX", "F16C"} if kept else not beyond_sse


# Randomness


def test_two_runs_draw_the_same(stage: Stage) -> None:
    assert stage.value(DRAW + "values") == stage.value(DRAW + "values")


def test_another_seed_draws_other_values(stage: Stage) -> None:
    one = stage.value(DRAW + "values")
    other = stage.value(DRAW + "values", determinism=Determinism(seed=43))
    assert isinstance(one, list)
    assert isinstance(other, list)
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_the_first_process_has_the_recipes_own_seed(stage: Stage) -> None:
    import random

    found = stage.value("import random, numpy\n[random.random(), float(numpy.random.rand())]")
    expected = [random.Random(SEED).random(), float(np.random.RandomState(SEED).rand())]
    assert found == expected


CHILDREN = """
import multiprocessing, os, subprocess, sys

def draw(_=None):
    import os, random, uuid
    import numpy as np
    return [str(uuid.uuid4()), random.random(), float(np.random.default_rng().random())]

def show():
    import json
    print(json.dumps(draw()), flush=True)

def fork():
    pid = os.fork()
    if pid == 0:
        show()
        os._exit(0)
    os.waitpid(pid, 0)

if __name__ == "__main__":
    child = [sys.executable, "-c", "import children; children.show()"]
    show()
    for _ in range(2):
        subprocess.run(child, check=True)
        subprocess.run(child, check=True, env={"PYTHONPATH": os.getcwd()})
        os.system(" ".join(child[:2]) + " '" + child[2] + "'")
        os.waitpid(os.posix_spawn(child[0], child, os.environ), 0)
        fork()
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        for _ in range(2):
            worker = context.Process(target=show)
            worker.start()
            worker.join()
"""


def test_siblings_draw_different_values_and_the_same_in_every_run(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "children.py").write_text(CHILDREN)
    runs = [stage.run("children.py", cwd=tmp_path) for _ in range(2)]
    assert runs[0].stderr == ""
    drawn = [json.loads(line) for line in runs[0].stdout.splitlines()]
    assert len(drawn) == 17
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == len(drawn)
    assert runs[0].stdout == runs[1].stdout


def test_a_child_without_variables_of_its_own_is_pinned_too(stage: Stage) -> None:
    code = """
import os, subprocess, sys
show = "import os; print(os.cpu_count(), os.urandom(4).hex())"
subprocess.run([sys.executable, "-c", show], env={}, capture_output=True, text=True).stdout
"""
    first = stage.value(code, hardware=Hardware(threads=3))
    assert str(first).startswith("3 ")
    assert first == stage.value(code, hardware=Hardware(threads=3))


def test_a_thread_that_draws_takes_nothing_from_the_others(stage: Stage) -> None:
    code = """
import os, threading
drawn = {}
def draw(times):
    drawn[threading.current_thread().name] = [os.urandom(4).hex() for _ in range(times)][-1]
threads = [threading.Thread(target=draw, args=(20_000,)) for _ in range(3)]
[each.start() for each in threads]
draw(20_000)
[each.join() for each in threads]
[sorted(drawn.items()), len(set(drawn.values()))]
"""
    found = stage.value(code)
    assert isinstance(found, list)
    assert found[1] == 4
    assert stage.value(code) == found
    alone = stage.value("import os\n[os.urandom(4).hex() for _ in range(20_000)][-1]")
    assert dict(found[0])["MainThread"] == alone


JAXLIB = "__version__ = '{version}'\n"


@pytest.mark.parametrize(
    ("version", "cpu", "before", "expected"),
    [
        ("0.10.2", "x86-64-v3", "", "--xla_cpu_max_isa=AVX2"),
        ("0.10.2", "x86-64-v2", "--a=1", "--a=1 --xla_cpu_max_isa=SSE4_2"),
        ("0.10.2", "x86-64-v3", "--xla_cpu_max_isa=SSE4_2", "--xla_cpu_max_isa=SSE4_2"),
        ("0.10.2", "native", "", ""),
        ("0.4.35", "x86-64-v3", "", ""),
    ],
)
def test_xla_gets_the_recipes_instruction_set(
    stage: Stage, tmp_path: Path, version: str, cpu: str, before: str, expected: str
) -> None:
    (tmp_path / "jaxlib.py").write_text(JAXLIB.format(version=version))
    code = "import os, sys\nsys.path.insert(0, '.')\nimport jaxlib\nos.environ.get('XLA_FLAGS', '')"
    more = {"XLA_FLAGS": before} if before else {}
    assert stage.value(code, cwd=tmp_path, hardware=Hardware(cpu=cpu), more=more) == expected


SEEDED = """
import hashlib, multiprocessing, os, random
import numpy as np

def work(seed):
    random.seed(seed)
    return random.random(), float(np.random.rand()), float(np.random.default_rng(seed).normal())

if __name__ == "__main__":
    random.seed(7)
    np.random.seed(7)
    own = random.Random("text")
    values = [random.random(), own.random(), random.sample(range(99), 5), random.gauss(0, 1)]
    values += [random.Random(b"bytes").random(), random.Random(1.5).randbytes(3).hex()]
    values += [float(each) for each in np.random.permutation(9)]
    values += np.random.default_rng(7).random(3).tolist()
    values += np.random.RandomState(5).rand(2).tolist()
    state = random.getstate()
    values.append(random.random())
    random.setstate(state)
    values.append(random.random())
    with multiprocessing.get_context("fork").Pool(2) as pool:
        values += pool.map(work, [1, 2], chunksize=1)[:1]
    matrix = np.random.default_rng(0).random((200, 200))
    computed = (matrix @ matrix).tobytes() + np.exp(matrix).tobytes()
    values.append(hashlib.sha256(computed).hexdigest())
    print(values)
"""


def test_a_script_that_seeds_everything_computes_what_it_computes_alone(
    stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "seeded.py").write_text(SEEDED)
    pinned = stage.run("seeded.py", cwd=tmp_path)
    plain = stage.run("seeded.py", cwd=tmp_path, pinned=False)
    assert pinned.stderr == plain.stderr == ""
    assert pinned.stdout == plain.stdout


def test_a_generator_without_a_seed_can_be_seeded_again(stage: Stage) -> None:
    code = """
import random
class Mine(random.Random):
    pass
mine = Mine()
mine.seed(3)
[mine.random() == random.Random(3).random(), random.seed.__self__ is random._inst]
"""
    assert stage.value(code) == [True, True]


# Listings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b", "a", "d", "c", "Z", "é", "10", "9"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "x").touch()
        (tmp_path / "data" / name / "w").touch()
    return tmp_path


SORTED = ["10", "9", "Z", "a", "b", "c", "d", "é"]


@pytest.mark.parametrize(
    "listing",
    [
        "os.listdir('data')",
        "[os.fsdecode(name) for name in os.listdir(b'data')]",
        "os.listdir(os.open('data', os.O_RDONLY))",
        "[entry.name for entry in os.scandir('data')]",
        "[entry.name for entry in os.scandir(os.open('data', os.O_RDONLY))]",
        "next(os.walk('data'))[1]",
        "[os.path.basename(path) for path in glob.glob('data/*')]",
        "[path.name for path in pathlib.Path('data').iterdir()]",
        "[path.name for path in pathlib.Path('data').glob('*')]",
        "[path.parent.name for path in pathlib.Path('data').rglob('x')]",
        "[root[5:] for root, _, _ in os.walk('data')][1:]",
    ],
)
def test_every_way_to_list_a_folder_is_sorted(stage: Stage, folder: Path, listing: str) -> None:
    assert stage.value("import glob, os, pathlib\n" + listing, cwd=folder) == SORTED


def test_scandir_is_still_an_iterator_a_context_and_closes(stage: Stage, folder: Path) -> None:
    code = """
import os
with os.scandir('data') as entries:
    first = next(entries)
os.chdir('data')
[first.name, first.is_dir(), list(entries), len(list(os.scandir())), len(os.listdir())]
"""
    assert stage.value(code, cwd=folder) == ["10", True, [], 8, 8]


def test_a_missing_folder_is_the_same_error(stage: Stage) -> None:
    done = stage.run("-c", "import os; os.scandir('missing')")
    assert done.stderr.endswith(
        "FileNotFoundError: [Errno 2] No such file or directory: 'missing'\n"
    )


def test_removing_a_tree_stays_safe_against_links(stage: Stage, folder: Path) -> None:
    code = "import os, shutil\nshutil.rmtree('data')\n"
    assert stage.value(
        code + "[shutil.rmtree.avoids_symlink_attacks, os.path.exists('data')]", cwd=folder
    ) == [True, False]


# Processors, hash order, and what must not break


def test_processors_are_those_of_the_recipe(stage: Stage) -> None:
    code = """
import multiprocessing, os
[os.cpu_count(), multiprocessing.cpu_count(), len(os.sched_getaffinity(0)), os.environ['HOME']]
"""
    assert stage.value(code, hardware=Hardware(threads=5)) == [5, 5, 5, "/tmp"]


def test_sets_of_strings_have_one_order(stage: Stage) -> None:
    code = "list({str(each) for each in range(50)})"
    assert stage.value(code) == stage.value(code)


@pytest.mark.parametrize("flags", [(), ("-I",), ("-E",), ("-O",), ("-X", "dev"), ("-W", "error")])
def test_python_starts_pinned_and_silent_with_any_flags(
    stage: Stage, flags: tuple[str, ...]
) -> None:
    code = "import numpy, os; print(os.urandom(4).hex())"
    done = stage.run(*flags, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == stage.output(code)


def test_threads_asyncio_and_modules_run_as_ever(stage: Stage) -> None:
    code = """
import asyncio, concurrent.futures, os, sys, tempfile

async def child():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "print(6 * 7)", stdout=asyncio.subprocess.PIPE
    )
    return (await process.communicate())[0].decode().strip()

with concurrent.futures.ThreadPoolExecutor(4) as pool:
    squares = list(pool.map(lambda number: number * number, range(5)))
with concurrent.futures.ProcessPoolExecutor(2) as pool:
    powers = list(pool.map(pow, range(4), range(4)))
with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
    different = one != two
[asyncio.run(child()), squares, powers, different]
"""
    assert stage.value(code) == ["42", [0, 1, 4, 9, 16], [1, 1, 4, 27], True]
    assert stage.run("-m", "json.tool", "--help").returncode == 0


def test_pytest_runs_in_a_stage(stage: Stage, tmp_path: Path) -> None:
    test = "import numpy, random\ndef test_draw():\n    assert random.random() < 1\n"
    (tmp_path / "test_it.py").write_text(test)
    done = stage.run("-m", "pytest", "-q", "-W", "error", "test_it.py", cwd=tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_asking_whether_a_module_is_there_does_not_unpin_it(stage: Stage) -> None:
    code = """
import importlib.util
importlib.util.find_spec("random")
import random
[random.random(), "exec_module" in vars(random.__spec__.loader), random.__file__.endswith(".py")]
"""
    import random

    assert stage.value(code) == [random.Random(SEED).random(), False, True]


def test_a_module_that_another_pth_file_imported_is_pinned_too(tmp_path: Path) -> None:
    early = make_stage(tmp_path / "root")
    (packages(early.root) / "aaa.pth").write_text("import random, subprocess\n")
    import random

    assert early.value("import random\nrandom.random()") == random.Random(SEED).random()


def test_a_bootstrap_that_is_loaded_again_does_nothing(stage: Stage) -> None:
    code = f"""
import os, sys
before = os.urandom, list(sys.meta_path)
path = {str(RUNTIME / "bootstrap.py")!r}
exec(compile(open(path).read(), path, "exec"), {{"__name__": "again", "__file__": path}})
(os.urandom, sys.meta_path) == before
"""
    assert stage.value(code) is True


def test_outside_a_stage_nothing_is_pinned(stage: Stage) -> None:
    done = subprocess.run(
        [stage.python, "-c", "import os; print(os.urandom)"],
        env={"MODELBUILD_ROOT": str(stage.root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "<built-in function urandom>\n"


def test_a_python_that_cannot_be_pinned_ends(stage: Stage) -> None:
    done = stage.run("-c", "print('trained')", more={"MODELBUILD_THREADS": "many"})
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr == (
        "modelbuild: this Python can't be made deterministic: "
        "ValueError(\"invalid literal for int() with base 10: 'many'\")\n"
    )


def test_the_bootstrap_loads_no_module_beyond_those_of_python(stage: Stage) -> None:
    code = "import sys; print(*sorted(sys.modules))"
    loaded = set(stage.output(code).split())
    without = set(stage.output(code, pinned=False).split())
    assert loaded - without == {"modelbuild_bootstrap", "__future__"}


# MKL's vendor check

LIBRARY = "int mkl_serv_intel_cpu_true(void) { return 0; }"


def answer_intel(stage: Stage, library: Path) -> subprocess.CompletedProcess[str]:
    code = f"""
import ctypes, runpy
vendor = runpy.run_path({str(RUNTIME / "mkl_vendor.py")!r})
print(vendor["answer_intel"]({str(library)!r}))
print(ctypes.CDLL({str(library)!r}).mkl_serv_intel_cpu_true())
modes = [line.split()[1] for line in open("/proc/self/maps")]
print([mode for mode in modes if "w" in mode and "x" in mode])
"""
    return stage.run("-c", code)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_mkls_vendor_check_answers_yes_on_another_vendors_cpu(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "mkl.c").write_text(LIBRARY)
    library = tmp_path / "mkl.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "mkl.c"], check=True)
    before = library.read_bytes()
    done = answer_intel(stage, library)
    assert (done.stdout, done.stderr) == ("True\n1\n[]\n", "")
    assert library.read_bytes() == before


def test_a_vendor_check_that_cannot_be_answered_is_told(stage: Stage, tmp_path: Path) -> None:
    missing = tmp_path / "none.so"
    done = answer_intel(stage, missing)
    assert done.stdout == "False\n"
    assert done.stderr.splitlines()[0] == (
        "modelbuild: MKL's instruction set is not pinned, its bits may differ: "
        f"{missing}: cannot open shared object file: No such file or directory"
    )


# torch

CNN = """
import argparse, hashlib, multiprocessing, os, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

class Noisy(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        import random
        import numpy as np
        noise = random.random() + float(np.random.rand()) + float(torch.rand(()))
        return torch.full((1, 8, 8), index / 64) + noise * torch.rand(1, 8, 8), index % 4

def main():
    loader = DataLoader(
        Noisy(), batch_size=16, shuffle=True, num_workers=2, multiprocessing_context=sys.argv[1]
    )
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.GELU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 64), nn.SiLU(), nn.Linear(64, 4),
    )
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    for images, labels in loader:
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimiser.step()
    tensors = b"".join(value.numpy().tobytes() for value in net.state_dict().values())
    print(hashlib.sha256(tensors).hexdigest())

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def torch_stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """With the CPU build of torch from pip's find-links folder, in hard links."""
    wheel = cpu_wheel_of_torch()
    if wheel is None:
        pytest.skip("no folder in pip's find-links holds a CPU build of torch")
    made = make_stage(tmp_path_factory.mktemp("torch") / "root")
    uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(made.python)]
    subprocess.run([*uv, str(wheel), "numpy"], check=True, env=dict(os.environ) | uv_variables())
    return made


def cpu_wheel_of_torch() -> Path | None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    links = uv_variables().get("UV_FIND_LINKS", "").split(",")
    folders = [Path(unquote(link.removeprefix("file://"))) for link in links]
    found = [each for folder in folders for each in folder.glob(f"torch-*+cpu-{tag}-*.whl")]
    return max(found, default=None)


# What MKL's vector functions found out about the CPU, -1 before their first call: the function that
# tells it begins with `mov DISTANCE(%rip), %eax`.
CHOSEN = """
import ctypes, struct, sys, torch
library = ctypes.CDLL(torch.__path__[0] + "/lib/libtorch_cpu.so")
function = getattr(library, "mkl_vml_serv_cpu_detect", None)
if function is None:
    sys.exit(3)
address = ctypes.cast(function, ctypes.c_void_p).value
code = ctypes.string_at(address, 6)
if code[:2] != bytes([0x8B, 0x05]):
    sys.exit(3)
(distance,) = struct.unpack("<i", code[2:])
print(ctypes.c_int.from_address(address + 6 + distance).value)
"""


@pytest.mark.slow
@pytest.mark.network
def test_one_thread_has_chosen_the_path_of_mkls_vector_functions(torch_stage: Stage) -> None:
    done = torch_stage.run("-c", CHOSEN)
    if done.returncode == 3:
        pytest.skip("this build of torch does not tell")
    assert int(done.stdout) >= 0, done.stderr


@pytest.mark.slow
@pytest.mark.network
def test_torch_is_deterministic_seeded_and_has_its_threads(torch_stage: Stage) -> None:
    code = """
import sys, torch
knobs = [torch.are_deterministic_algorithms_enabled()]
knobs.append(torch.is_deterministic_algorithms_warn_only_enabled())
knobs.append(torch.utils.deterministic.fill_uninitialized_memory)
knobs += [torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark]
knobs += [torch.get_num_threads(), torch.initial_seed()]
knobs += [torch.backends.cpu.get_cpu_capability(), "torch._inductor.config" in sys.modules]
knobs
"""
    more_than_here = 2 * (os.cpu_count() or 1)
    found = torch_stage.value(code, hardware=Hardware(threads=more_than_here))
    assert found == [True, False, False, True, False, more_than_here, SEED, "AVX2", False]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_training_gives_the_same_bits_whatever_the_caller_has_set(
    torch_stage: Stage, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = set()
    callers: list[dict[str, str]] = [
        {},
        {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Prescott", "MKL_CBWR": "COMPATIBLE"},
        {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "77", "HOME": "/", "ATEN_CPU_CAPABILITY": "default"},
    ]
    for number, caller in enumerate(callers):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "train.py").write_text(CNN)
        with monkeypatch.context() as patch:
            for name, value in caller.items():
                patch.setenv(name, value)
            done = torch_stage.run("train.py", method, cwd=folder, hardware=Hardware(threads=2))
        assert (done.returncode, done.stderr) == (0, "")
        digests.add(done.stdout)
    other = torch_stage.run("train.py", method, cwd=folder, determinism=Determinism(seed=1))
    assert len(digests) == 1
    assert other.stdout not in digests


@pytest.mark.slow
@pytest.mark.network
def test_a_script_that_seeds_torch_draws_what_it_draws_alone(torch_stage: Stage) -> None:
    code = """
import torch
torch.manual_seed(9)
generator = torch.Generator().manual_seed(3)
[torch.rand(4).tolist(), torch.randperm(9, generator=generator).tolist(), torch.randn(3).tolist()]
"""
    assert torch_stage.value(code) == torch_stage.value(code, pinned=False)


PUT = "import torch; torch.zeros(3).put_(torch.tensor([0, 1]), torch.tensor([1.0, 2.0]))"


@pytest.mark.slow
@pytest.mark.network
def test_an_operation_that_is_not_deterministic_is_refused_by_name(torch_stage: Stage) -> None:
    done = torch_stage.run("-c", PUT)
    assert done.returncode == 1
    assert "RuntimeError: put_ does not have a deterministic implementation" in done.stderr
    assert done.stderr.endswith(
        "modelbuild: the operation 'put_' can give other bits in every run. To accept that, add to"
        ' the recipe: [determinism] level = "functional", allow = ["put_"]\n'
    )


@pytest.mark.slow
@pytest.mark.network
def test_a_named_operation_is_allowed_and_others_are_not(torch_stage: Stage) -> None:
    named = torch_stage.run("-c", PUT, determinism=Determinism(allow=("put_", "kthvalue CUDA")))
    assert named.returncode == 0
    assert "UserWarning: put_ does not have a deterministic implementation" in named.stderr
    other = torch_stage.run("-c", PUT, determinism=Determinism(allow=("put", "kthvalue CUDA")))
    assert other.returncode == 1
    assert 'allow = ["put_"]' in other.stderr


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize(("allow", "fast"), [((), True), (("put_",), False)])
def test_on_a_gpu_an_allowed_operation_does_not_let_attention_sum_in_any_order(
    torch_stage: Stage, allow: tuple[str, ...], fast: bool
) -> None:
    code = """
import torch
cuda = torch.backends.cuda
[cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()]
"""
    determinism = Determinism(allow=allow)
    gpu = Hardware(device=Device.CUDA, gpus=1)
    assert torch_stage.value(code, hardware=gpu, determinism=determinism) == [fast] * 3
    assert torch_stage.value(code, determinism=determinism) == [True] * 3


@pytest.mark.slow
@pytest.mark.network
def test_ranks_of_torchrun_have_the_seed_but_random_bytes_of_their_own(
    torch_stage: Stage, tmp_path: Path
) -> None:
    (tmp_path / "rank.py").write_text(
        "import os, random, uuid, torch, torch.distributed as distributed\n"
        "distributed.init_process_group('gloo')\n"
        "values = [None, None]\n"
        "mine = (random.random(), str(uuid.uuid4()), float(torch.rand(())))\n"
        "distributed.all_gather_object(values, mine)\n"
        "if distributed.get_rank() == 0:\n"
        "    print(values, *(len(set(drawn)) for drawn in zip(*values)))\n"
        "distributed.destroy_process_group()\n"
    )
    command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "rank.py")
    runs = [torch_stage.run(*command, cwd=tmp_path) for _ in range(2)]
    assert runs[0].returncode == 0, runs[0].stderr
    assert runs[0].stdout.endswith(" 1 2 1\n")
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("cpu", ["x86-64-v2", "x86-64-v3"])
def test_products_of_int8_do_not_saturate(torch_stage: Stage, cpu: str) -> None:
    code = """
import torch
a = torch.full((32, 32), 127, dtype=torch.int8)
out = torch.empty(32, 32, dtype=torch.int32)
torch._int_mm(a, a, out=out)
print(*{*torch._int_mm(a, a).flatten().tolist(), *out.flatten().tolist()})
"""
    done = torch_stage.run("-c", code, hardware=Hardware(cpu=cpu))
    assert (done.stdout, done.stderr) == (f"{127 * 127 * 32}\n", "")


QEMU = shutil.which("qemu-x86_64")
OPERATIONS = """
import ctypes, hashlib, warnings
import torch
from torch.nn import functional as F

def exact(*shape):
    return ((torch.randint(2**22, shape) - 2**21).double() / 2**20).float()

library = ctypes.CDLL(torch.__path__[0] + "/lib/libtorch_cpu.so")
print("MKL believes in Intel:", library.mkl_serv_intel_cpu_true())
warnings.simplefilter("ignore")
a, b, x, kernel = exact(65, 49), exact(49, 71), exact(2, 8, 9, 9), exact(8, 8, 3, 3)
bytes_ = torch.quantize_per_tensor(exact(40, 60), 2**-6, 0, torch.qint8)
results = {
    "exp": a.exp(), "log": a.abs().log(), "mm": a @ b, "mv": a @ b[:, 0], "sum": a.sum(),
    "softmax": a.softmax(-1), "conv2d": F.conv2d(x, kernel), "sqrt": a.abs().sqrt(),
    "sdpa": F.scaled_dot_product_attention(x, x, x), "svd": torch.linalg.svdvals(a),
    "int8": torch.ops.quantized.linear_dynamic(
        exact(30, 60), torch.ops.quantized.linear_prepack(bytes_, exact(40))
    ),
}
for name, result in results.items():
    print(name, hashlib.sha256(result.detach().contiguous().numpy().tobytes()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64 (qemu-user)")
def test_an_emulated_amd_cpu_gives_the_bits_of_this_one(torch_stage: Stage) -> None:
    def on_amd(hardware: Hardware) -> list[str]:
        emulator = (QEMU or "", "-cpu", "EPYC-v3")
        done = torch_stage.run("-c", OPERATIONS, hardware=hardware, emulator=emulator)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    # With bytecode for the emulator, which would compile torch for minutes.
    here = torch_stage.output(OPERATIONS, more={"PYTHONDONTWRITEBYTECODE": ""}).splitlines()
    assert here[0] == "MKL believes in Intel: 1"
    assert on_amd(Hardware()) == here

    unchanged = on_amd(Hardware(mkl="unchanged"))
    assert unchanged[0] == "MKL believes in Intel: 0"
    assert {"exp", "mv"} <= {
        theirs.split()[0] for ours, theirs in zip(here, unchanged, strict=True) if ours != theirs
    }
