"""The process that recorded its step ends, whatever its children and their watchers do."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """\
import multiprocessing, signal, time
from modelbuild.runtime.v1.operations import end_process

def handler(*_):
    raise RuntimeError("a worker is killed by signal")  # as DataLoader's does

class Child(multiprocessing.get_context("fork").Process):
    def kill(self):
        super().kill()
        self.join()  # so long that its death is told before the next one is killed

if __name__ == "__main__":
    for _ in range(2):
        Child(target=time.sleep, args=(60,), daemon=True).start()
    signal.signal(signal.SIGCHLD, handler)
    print("recorded")
    end_process()
"""


def test_that_its_children_die_is_told_to_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "recorded\n", "")
