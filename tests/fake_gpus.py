"""A machine with GPUs that are none: device files that swallow everything, and an `nvidia-smi`.

They stand in a mount namespace of their own, which root alone can make. What is real: the device
files that builds lease, hide and show. What is not: a driver behind them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from conftest import Tiny

DEVICES = """
set -e
mount --bind /dev "$1"
mount -t tmpfs -o mode=755 none /dev
for name in null zero full random urandom tty; do
    touch /dev/$name; mount --bind "$1/$name" /dev/$name
done
for name in shm pts; do mkdir /dev/$name; mount --rbind "$1/$name" /dev/$name; done
ln -s pts/ptmx /dev/ptmx; ln -s /proc/self/fd /dev/fd
for name in ctl 0 2; do mknod -m 666 /dev/nvidia$name c 1 3; done
echo ready
exec sleep infinity
"""

SMI = """\
#!/bin/sh
case "$1" in
    --query-gpu=index,*)
        echo "0, GPU-aaaa, 00000000:17:00.0, NVIDIA H100 80GB HBM3, 81559, 550.54.15"
        echo "1, GPU-bbbb, 00000000:65:00.0, NVIDIA H100 80GB HBM3, 81559, 550.54.15" ;;
    --query-gpu=uuid,memory.used) cat {folder}/memory ;;
    --query-compute-apps=*) cat {folder}/programs ;;
    *) exit 6 ;;
esac
"""


@dataclass
class GpuMachine(Tiny):
    """A workspace on a machine with two GPUs, whose device files are nvidia0 and nvidia2."""

    namespace: int = 0
    smi: Path = field(default_factory=Path)

    def command(self, *arguments: str) -> list[str]:
        return self.inside(sys.executable, "-m", "modelbuild", *arguments)

    def inside(self, *command: str) -> list[str]:
        entered = ["nsenter", "--mount", f"--target={self.namespace}", f"--wd={self.root}"]
        return [*entered, "env", f"PATH={self.smi}:{os.environ['PATH']}", *command]

    def use(self, programs: str, memory: str = "GPU-aaaa, 0\nGPU-bbbb, 0\n") -> None:
        (self.smi / "programs").write_text(programs)
        (self.smi / "memory").write_text(memory)


@contextmanager
def gpu_machine(workspace: Path, folder: Path) -> Iterator[GpuMachine]:
    smi, old = folder / "smi", folder / "dev"
    for each in (workspace, smi, old):
        each.mkdir(parents=True)
    (smi / "nvidia-smi").write_text(SMI.format(folder=smi))
    (smi / "nvidia-smi").chmod(0o755)
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", DEVICES, "sh", str(old)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            machine = GpuMachine(workspace, namespace=process.pid, smi=smi)
            machine.use("")
            yield machine
        finally:
            process.kill()
