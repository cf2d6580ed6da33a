"""Runs trainings one after the other, each in a fork of a process that has loaded torch.

Each line of stdin names a root, as MODELBUILD_ROOT does, and the arguments of `training.py`. The
bootstrap runs in the fork, as it does in any Python of a stage that has loaded torch by then.
"""

import atexit
import json
import os
import shutil
import sys

import numpy  # noqa: F401
import torch._dynamo  # noqa: F401  # which the first optimiser loads


def run(root: str, arguments: list[str]) -> None:
    os.environ["MODELBUILD_ROOT"] = root
    os.chdir(f"{root}/src")
    make_files(os.environ["FILES"], backwards=arguments[-1] == "1")
    bootstrap, script = f"{root}/runtime/bootstrap.py", f"{root}/src/training.py"
    execute(bootstrap, "modelbuild_bootstrap", {})
    sys.argv = [script, *arguments]
    execute(script, "__main__", sys.modules["__main__"].__dict__)


def make_files(folder: str, *, backwards: bool) -> None:
    """In a file system that lists them in the order in which they were made."""
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    for number in sorted(range(32), reverse=backwards):
        with open(f"{folder}/{number}", "w") as file:
            file.write(str(number))


def execute(path: str, name: str, names: dict) -> None:
    with open(path) as file:
        code = compile(file.read(), path, "exec")
    names.update({"__name__": name, "__file__": path})
    exec(code, names)


for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            run(job["root"], job["arguments"])
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        atexit._run_exitfuncs()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
