"""The end of a failed stage's log, and the line of the recipe that it asks for."""

from __future__ import annotations

import pytest

from modelbuild.sandbox.explain import explain_failure

WORKSPACE = {
    "config.yaml",
    "data/train.csv",
    "nets",
    "nets/cnn.py",
    "train.py",
    "weights/resnet.pt",
    "with space.csv",
}


def explain(log: str) -> str | None:
    return explain_failure(log.encode(), WORKSPACE.__contains__)


PYTHON = """\
epoch 1 of 3
Traceback (most recent call last):
  File "/build/src/train.py", line 12, in <module>
    main()
  File "/build/src/train.py", line 8, in main
    rows = open({path})
           ^^^^{carets}^
FileNotFoundError: [Errno 2] No such file or directory: {path}
"""
DATA_ADVICE = """\
{path} exists in the workspace, but the recipe does not declare it. Add
  [data.{name}]
  path = "{path}"
and pass {{data.{name}}} to the command, which is where the stage finds it."""
CODE_ADVICE = """\
{path} exists in the workspace, but the recipe does not declare it. Add it to:
  [code]
  include = [..., "{path}"]"""


@pytest.mark.parametrize(
    "written", ["'data/train.csv'", "'./data/train.csv'", "'/build/src/data/train.csv'"]
)
def test_a_data_file_that_is_not_declared_is_named_with_its_table(written: str) -> None:
    log = PYTHON.format(path=written, carets="^" * len(written))
    assert explain(log) == DATA_ADVICE.format(path="data/train.csv", name="train")


@pytest.mark.parametrize(
    "line",
    [
        "FileNotFoundError: [Errno 2] No such file or directory: 'with space.csv'",
        "FileNotFoundError: [Errno 2] No such file or directory: b'with space.csv'",
        'FileNotFoundError: No such file or directory: "with space.csv"',
        "RuntimeError: [Errno 2] No such file or directory: 'with space.csv'\n\nFailed",
    ],
)
def test_pandas_torch_and_safetensors_name_missing_files_alike(line: str) -> None:
    assert explain(line) == DATA_ADVICE.format(path="with space.csv", name="with-space")


@pytest.mark.parametrize(
    "line",
    [
        "FileNotFoundError: data/train.csv not found.",
        "cat: data/train.csv: No such file or directory",
        "ls: cannot access 'data/train.csv': No such file or directory",
        "sh: 1: cannot open data/train.csv: No such file",
        "bash: line 1: data/train.csv: No such file or directory",
    ],
)
def test_numpy_and_shells_name_missing_files_in_their_own_ways(line: str) -> None:
    assert explain(line) == DATA_ADVICE.format(path="data/train.csv", name="train")


def test_a_configuration_file_belongs_to_the_code() -> None:
    log = PYTHON.format(path="'config.yaml'", carets="^" * 13)
    assert explain(log) == CODE_ADVICE.format(path="config.yaml")


@pytest.mark.parametrize("folder", ["/build/src", "/home/me/.local/share/x/tmp/build-1/src"])
def test_a_script_that_is_not_declared_belongs_to_the_code(folder: str) -> None:
    log = f"python: can't open file '{folder}/train.py': [Errno 2] No such file or directory\n"
    assert explain(log) == CODE_ADVICE.format(path="train.py")


def test_a_file_that_exists_nowhere_is_the_scripts_own_mistake() -> None:
    assert explain(PYTHON.format(path="'tpyo.csv'", carets="^" * 10)) is None
    assert explain(PYTHON.format(path="'../data/train.csv'", carets="^" * 19)) is None
    assert explain(PYTHON.format(path="'/tmp/cache/x'", carets="^" * 14)) is None


def test_a_path_of_this_machine_becomes_a_location() -> None:
    log = PYTHON.format(path="'/mnt/big/imagenet/train.bin'", carets="^" * 29)
    assert explain(log) == (
        "The stage looked for /mnt/big/imagenet/train.bin: a stage sees no path of this machine.\n"
        "Declare it as data, and pass {data.train} to the command:\n"
        "  [data.train]\n"
        '  location = "NAME"'
    )


MODULE = """\
Traceback (most recent call last):
  File "/build/src/train.py", line 3, in <module>
    import {module}
ModuleNotFoundError: No module named '{module}'
"""


@pytest.mark.parametrize(
    ("module", "include"),
    [("nets.cnn", "nets/cnn.py"), ("nets", "nets/**/*.py"), ("nets.rnn", "nets/**/*.py")],
)
def test_a_module_of_the_workspace_belongs_to_the_code(module: str, include: str) -> None:
    assert explain(MODULE.format(module=module)) == (
        f"Module '{module}' exists in the workspace, but the recipe does not declare it. "
        f'Add it to:\n  [code]\n  include = [..., "{include}"]'
    )


@pytest.mark.parametrize(
    ("module", "package"),
    [("pandas", "pandas"), ("sklearn.svm", "scikit-learn"), ("PIL", "pillow"), ("a_b", "a-b")],
)
def test_any_other_module_belongs_to_the_packages(module: str, package: str) -> None:
    assert explain(MODULE.format(module=module)) == (
        f"Module '{module}' is not in the environment. Add its package to:\n"
        f'  [environment]\n  packages = [..., "{package}"]'
    )


@pytest.mark.parametrize(
    ("code", "folder"),
    [("nets/cnn.py", "."), ("src/nets/cnn.py", "src"), ("a/b/nets/cnn/__init__.py", "a/b")],
)
def test_a_module_of_the_stage_that_python_does_not_find_is_told_from_a_missing_one(
    code: str, folder: str
) -> None:
    log = MODULE.format(module="nets.cnn").encode()
    assert explain_failure(log, WORKSPACE.__contains__, code=[code, "train.py"]) == (
        f"Module 'nets.cnn' is part of the stage's code ({code}), but Python does not search "
        "that folder\nfor it. Add to the stage:\n"
        f'  env = {{ PYTHONPATH = "{folder}" }}'
    )


def test_python_dash_m_names_a_missing_module_without_a_traceback() -> None:
    assert explain("/build/env/bin/python: No module named pandas\n") == (
        "Module 'pandas' is not in the environment. Add its package to:\n"
        '  [environment]\n  packages = [..., "pandas"]'
    )


def test_a_missing_part_of_the_standard_library_is_no_package() -> None:
    assert explain(MODULE.format(module="_tkinter")) is None


URLLIB = """\
Traceback (most recent call last):
  File "/build/python/lib/python3.11/urllib/request.py", line 1348, in do_open
    h.request(req.get_method(), req.selector, req.data, headers,
  File "/build/python/lib/python3.11/socket.py", line 962, in getaddrinfo
    for res in _socket.getaddrinfo(host, port, family, type, proto, flags):
               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
socket.gaierror: [Errno -3] Temporary failure in name resolution

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/build/src/train.py", line 4, in <module>
    urllib.request.urlretrieve("https://example.org/sets/iris.csv", "/tmp/iris.csv")
  File "/build/python/lib/python3.11/urllib/request.py", line 1351, in do_open
    raise URLError(err)
urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>
"""
REQUESTS = """\
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='example.org', port=443): \
Max retries exceeded with url: /sets/iris.csv (Caused by NameResolutionError("<urllib3.\
connection.HTTPSConnection object at 0x7f0>: Failed to resolve 'example.org' ([Errno -3] \
Temporary failure in name resolution)"))
"""
HUB = """\
huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files in the disk \
cache and outgoing traffic has been disabled. To enable hf.co look-ups and downloads online, \
set 'local_files_only' to False.

The above exception was the direct cause of the following exception:

OSError: We couldn't connect to 'https://example.org' to load the files, and couldn't find \
them in the cached files.
Check your internet connection or see how to run the library in offline mode at \
'https://example.org/docs/transformers/installation#offline-mode'.
"""
TORCHVISION = """\
Downloading https://example.org/mnist/train-images.gz
Failed to download (trying next):
<urlopen error [Errno -3] Temporary failure in name resolution>
Traceback (most recent call last):
RuntimeError: Error downloading train-images.gz
"""


@pytest.mark.parametrize(
    ("log", "name", "url"),
    [
        (URLLIB, "iris", "https://example.org/sets/iris.csv"),
        (REQUESTS, "iris", "https://example.org/sets/iris.csv"),
        (HUB, "NAME", None),
        (TORCHVISION, "train-images", "https://example.org/mnist/train-images.gz"),
        ("httpx.ConnectError: [Errno -3] Temporary failure in name resolution", "NAME", None),
        ("httpcore.ConnectError: [Errno 101] Network is unreachable", "NAME", None),
        ("OfflineModeIsEnabled: Cannot reach it: offline mode is enabled.", "NAME", None),
        ("curl: (6) Could not resolve host: example.org", "NAME", None),
    ],
)
def test_a_download_becomes_a_data_table(log: str, name: str, url: str | None) -> None:
    assert explain(log) == (
        "The stage tried to download. Stages have no network: declare what they read, and pass "
        f"{{data.{name}}} to the command:\n"
        f'  [data.{name}]\n  url = "{url or "https://..."}"'
    )


def test_an_installation_becomes_a_package() -> None:
    log = """\
WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after \
connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object \
at 0x7f2>: Failed to establish a new connection: [Errno -3] Temporary failure in name \
resolution')': /simple/einops/
ERROR: Could not find a version that satisfies the requirement einops (from versions: none)
ERROR: No matching distribution found for einops
"""
    assert explain(log) == (
        "Stages have no network: packages are installed before, from the lock. Add:\n"
        '  [environment]\n  packages = [..., "einops"]'
    )


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("OSError: [Errno 30] Read-only file system: 'model.pt'", "model.pt: "),
        (
            "OSError: [Errno 30] Read-only file system: '/build/data/x/cache'",
            "/build/data/x/cache: ",
        ),
        ("sh: 1: cannot create model.pt: Read-only file system", ""),
        ("RuntimeError: Parent directory ./ckpt does not exist: Read-only file system", ""),
    ],
)
def test_a_write_elsewhere_is_sent_to_the_output(line: str, where: str) -> None:
    assert explain(line) == (
        f"{where}a stage writes to its output folder only. Pass {{out}} to the command, or let it "
        "write below $MODELBUILD_OUT; what is not kept can go to /tmp."
    )


WRITING = """\
Traceback (most recent call last):
  File "/build/src/train.py", line 8, in <module>
    {line}
{frames}FileNotFoundError: [Errno 2] No such file or directory: 'config.yaml'
"""
PATHLIB = """\
  File "/build/python/lib/python3.11/pathlib.py", line 1078, in write_text
    with self.open(mode='w', encoding=encoding, errors=errors, newline=newline) as f:
  File "/build/python/lib/python3.11/pathlib.py", line 1044, in open
    return io.open(self, mode, buffering, encoding, errors, newline)
"""
OPEN = """\
  File "/build/src/train.py", line 3, in rows
    return open(path).read()
"""
NO_FOLDER = (
    "{} can't be written, for its folder is missing: a stage writes to its output folder only. "
    "Pass {{out}} to the\ncommand, or let it write below $MODELBUILD_OUT."
)


@pytest.mark.parametrize(
    ("line", "frames"),
    [
        ('json.dump({}, open("config.yaml", "w"))', ""),
        ("with open(path, mode='wb') as file:", ""),
        (
            "np.savetxt(path, rows)",
            '  File "npyio.py", line 1, in savetxt\n    open(f, m).close()\n',
        ),
        ("path.write_text(text)", PATHLIB),
    ],
)
def test_a_file_that_was_to_be_written_is_no_missing_code(line: str, frames: str) -> None:
    assert explain(WRITING.format(line=line, frames=frames)) == NO_FOLDER.format("config.yaml")


@pytest.mark.parametrize(
    ("line", "frames"),
    [
        ('text = open("config.yaml", "r").read()', ""),
        ("json.dump(rows(), file)", OPEN.replace("rows", "main") + OPEN),
    ],
)
def test_a_file_that_was_to_be_read_is_missing_beside_calls_that_write(
    line: str, frames: str
) -> None:
    log = f"Traceback (most recent call last):\nopen('a', 'w')\n{WRITING}"
    assert explain(log.format(line=line, frames=frames)) == CODE_ADVICE.format(path="config.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "OSError: Cannot save file into a non-existent directory: 'models'",
        "RuntimeError: Parent directory models does not exist.",
        "sh: 1: cannot create models: Directory nonexistent",
    ],
)
def test_pandas_torch_and_shells_name_missing_folders_in_their_own_ways(line: str) -> None:
    assert explain(line) == NO_FOLDER.format("models")


@pytest.mark.parametrize(
    "log",
    [
        "MemoryError\n",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 TiB for an array\n",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 4000000000000 bytes.\n",
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed. \n",
        "step 100\nKilled\n",
    ],
)
def test_a_stage_that_ran_out_of_memory_is_told_so(log: str) -> None:
    assert explain(log) == (
        "This machine's memory was not enough for the stage; a smaller batch, or fewer workers, "
        "need less. `modelbuild doctor` shows how much there is."
    )


def test_a_gpu_that_ran_out_of_memory_is_told_apart() -> None:
    log = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB."
    assert explain(log) == "The GPU's memory was not enough for the stage."


def test_a_full_private_folder_is_explained() -> None:
    assert explain("OSError: [Errno 28] No space left on device: '/tmp/shuffle'") == (
        "A stage's /tmp and /dev/shm lie in memory and are bounded; or the disk is full. Write "
        "what is large below {out}, or let data loaders use fewer workers."
    )


def test_the_last_complaint_counts() -> None:
    assert explain(MODULE.format(module="apex") + "going on without\n" + URLLIB) == explain(URLLIB)
    assert explain(URLLIB + "using the file at hand\n" + MODULE.format(module="apex")) == explain(
        MODULE.format(module="apex")
    )


@pytest.mark.parametrize(
    "line",
    [
        "/build/env/torch/nn/x.py:1: UserWarning: Failed to initialize NumPy: No module named "
        "'numpy' (Triggered internally at tensor_numpy.cpp:84.)",
        "[W tensor_numpy.cpp:77] Warning: Failed to initialize NumPy: No module named 'numpy'",
    ],
)
def test_a_warning_is_no_cause(line: str) -> None:
    assert explain(f"{line}\nIsADirectoryError: [Errno 21] Is a directory: 'data'\n") is None
    raised = "UserWarning: No module named 'numpy'\n"
    assert explain(raised) == explain(MODULE.format(module="numpy"))


@pytest.mark.parametrize(
    "log", [b"", b"\xff\xfe\0", b"ValueError: loss is nan\n", b"AssertionError\n" * 1000]
)
def test_what_is_not_recognised_is_not_explained(log: bytes) -> None:
    assert explain_failure(log, lambda path: True) is None
