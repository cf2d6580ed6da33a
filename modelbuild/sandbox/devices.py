"""Keeps a stage that root started from changing the host's devices.

bubblewrap can't make device nodes, so it shows the host's own. Inside, root has become user 1000
without any capability, but it still owns them, and an owner may change mode and times: of the
host's `/dev/null`. So bubblewrap is started where the nodes are mounted read-only. That forbids
it, reading and writing the devices goes on, and nothing inside has the right to undo it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

BASIC = tuple(f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero"))
"""What bubblewrap's `--dev` shows of the host."""
UNPROTECTED = "modelbuild: cannot protect the host's devices: "

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_SLAVE = 1 << 19
KEPT = os.ST_NOSUID | getattr(os, "ST_NODEV", 4) | getattr(os, "ST_NOEXEC", 8)
"""What a mount that is made read-only must keep; the same numbers as mount's."""


def protection(devices: Sequence[str]) -> Callable[[], None] | None:
    """What to call between fork and exec of bubblewrap; None where the user owns no device.

    Where it can't be had, the process ends, and what it says starts with UNPROTECTED.
    """
    nodes = [node for device in devices for node in _nodes(device)]
    if all(os.stat(node).st_uid != os.geteuid() for node in nodes):
        return None
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def protect() -> None:
        try:
            _own_mounts(libc)
            for node in nodes:
                _make_read_only(libc, node)
            _open_again(nodes)
        except BaseException as error:  # nothing may go on unprotected
            os.write(2, f"{UNPROTECTED}{error}\n".encode())
            os._exit(1)

    return protect


def _nodes(device: str) -> Iterator[str]:
    """It, and what is in it if it is a folder; nothing if it is not there."""
    if os.path.exists(device):
        yield device
    if os.path.isdir(device):
        yield from sorted(str(path) for path in Path(device).iterdir())


def _own_mounts(libc: CDLL) -> None:
    """A copy of the host's mounts, whose changes do not reach the host."""
    if libc.unshare(CLONE_NEWNS) != 0:
        # The root of a container may lack the right; anyone has it in a user namespace.
        user, group = os.geteuid(), os.getegid()
        _call(libc, "unshare", CLONE_NEWUSER | CLONE_NEWNS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _call(libc, "mount", None, b"/", None, MS_SLAVE | MS_REC, None)


def _make_read_only(libc: CDLL, node: str) -> None:
    path = os.fsencode(node)
    _call(libc, "mount", path, path, None, MS_BIND, None)
    kept = os.statvfs(path).f_flag & KEPT
    _call(libc, "mount", None, path, None, MS_REMOUNT | MS_BIND | MS_RDONLY | kept, None)
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise OSError(f"{node} is still writable")


def _open_again(nodes: Sequence[str]) -> None:
    """stdin, stdout and stderr through the mounts above: an open `/dev/null` can be changed too."""
    import fcntl

    places = {os.stat(node).st_rdev: node for node in nodes if _is_device(os.stat(node))}
    for descriptor in range(3):
        status = os.fstat(descriptor)
        if _is_device(status) and status.st_rdev in places:
            mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
            os.dup2(os.open(places[status.st_rdev], mode), descriptor)


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode)


def _call(libc: CDLL, name: str, *arguments: int | bytes | None) -> None:
    import ctypes

    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
