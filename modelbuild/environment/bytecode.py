"""Bytecode that is the same on every machine: fixed paths, no times, in every core.

A stage can't write into its environment, so without bytecode every process of it would compile
everything that it imports, each time.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from modelbuild.environment.child import dying_with_us
from modelbuild.errors import ModelbuildError

# Runs in the locked interpreter. What is not valid Python (templates, other versions' syntax)
# stays without bytecode; anything else that fails, such as a full disk, ends it.
_COMPILER = """
import concurrent.futures, ctypes, json, os, py_compile, signal, sys, warnings

warnings.simplefilter("ignore")
folder, place, workers = json.load(sys.stdin)
unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH

def compile_file(path):
    try:
        shown = os.path.join(place, path)
        py_compile.compile(path, dfile=shown, doraise=True, invalidation_mode=unchecked)
    except py_compile.PyCompileError:
        pass

def end_with(parent):
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

if __name__ == "__main__":
    os.chdir(folder)
    found = [os.path.relpath(os.path.join(parent, name))
             for parent, _, names in os.walk(".") for name in names if name.endswith(".py")]
    with concurrent.futures.ProcessPoolExecutor(
        workers, initializer=end_with, initargs=(os.getpid(),)
    ) as pool:
        for _ in pool.map(compile_file, sorted(found), chunksize=32):
            pass
"""


def compile_bytecode(folder: Path, place: str, python: Path) -> None:
    """Compile every module in `folder` as if it were at `place`, with the interpreter `python`.

    Existing bytecode is replaced, on fresh inodes: files may be hard links to others' caches.
    """
    done = subprocess.run(
        [str(python), "-S", "-B", "-c", _COMPILER],
        input=json.dumps([str(folder), place, os.cpu_count() or 1]),
        # Nothing inherited; before 3.11 the order of sets of constants follows the hash seed.
        env={"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        preexec_fn=dying_with_us(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ModelbuildError(f"compiling bytecode in {folder} failed", facts=[("found", last[0])])
