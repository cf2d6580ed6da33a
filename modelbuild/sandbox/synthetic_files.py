"""Small files that programs expect below /etc and /sys, the same on every host."""

from __future__ import annotations

HOST_NAME = "modelbuild"
USER_ID = 1000

ETC = {
    "/etc/passwd": (
        "root:x:0:0:root:/:/bin/sh\n"
        f"{HOST_NAME}:x:{USER_ID}:{USER_ID}:{HOST_NAME}:/tmp:/bin/sh\n"
        "nobody:x:65534:65534:nobody:/:/bin/sh\n"
    ),
    "/etc/group": f"root:x:0:\n{HOST_NAME}:x:{USER_ID}:\nnogroup:x:65534:\n",
    "/etc/hosts": f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost {HOST_NAME}\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
}


def synthetic_files(threads: int) -> dict[str, str]:
    """Contents by path inside. `threads` is the number of processors that programs are told."""
    processors = f"0-{threads - 1}\n" if threads > 1 else "0\n"
    folder = "/sys/devices/system/cpu"
    return ETC | {f"{folder}/{name}": processors for name in ("online", "possible", "present")}
