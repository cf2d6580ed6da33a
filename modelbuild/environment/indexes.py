"""Where wheels come from: what pip's and uv's configuration say, taken together.

uv reads nothing of pip's configuration. Who has configured only pip (an index, a folder of
wheels, a certificate) gets the same places from uv; where uv has a setting of its own, that wins.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from modelbuild.errors import ModelbuildError
from modelbuild.spec.logins import without_logins

_NO_INDEX = "file:///no-index"
"""uv has no variable for pip's `no-index`; an absent folder is an index without packages."""

_OWN_SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "all_proxy", "https_proxy", "http_proxy"),
    "trusted-host": ("UV_INSECURE_HOST",),
    "timeout": ("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT"),
    "retries": ("UV_HTTP_RETRIES",),
}
"""pip's settings, and the variables that say the same to uv: the first is the one we set."""

_NARROWING_VARIABLES = {
    "UV_CONSTRAINT": "a constraint",
    "UV_OVERRIDE": "an override",
    "UV_EXCLUDE": "an exclusion",
    "UV_EXCLUDE_NEWER": "exclude-newer",
    "UV_PRERELEASE": "prereleases",
    "UV_RESOLUTION": "the resolution strategy",
}

_NARROWING_KEYS = (
    "constraint-dependencies",
    "exclude-dependencies",
    "exclude-newer",
    "exclude-newer-package",
    "override-dependencies",
    "prerelease",
    "resolution",
)


def uv_variables(*, resolving: bool = False) -> dict[str, str]:
    """The environment for a `uv` subprocess.

    The caller's own, and what pip's configuration says and uv's does not: indexes, find-links,
    certificate, proxy. Only with `resolving` does it hold what narrows a resolution (constraints,
    exclude-newer, the rule of the first index): what is locked is installed as locked, and
    `uv pip install --require-hashes` refuses constraints.
    """
    pip = pip_settings()
    variables = dict(os.environ)
    own = set(_uv_file_keys())
    for setting, names in _OWN_SETTINGS.items():
        value = _for_uv(setting, pip)
        if value and setting not in own and not any(os.environ.get(name) for name in names):
            variables[names[0]] = value
    if resolving:
        _add_constraints(variables, pip)
        return variables
    for name in _NARROWING_VARIABLES:
        variables.pop(name, None)
    # uv's rule of the first index is for choosing a version. A digest is the same everywhere.
    variables.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return variables


def narrowing_settings() -> tuple[str, ...]:
    """What outside the workspace narrows a resolution, in words for people."""
    pip = pip_settings()
    found = [f"pip's configuration: constraint {path}" for path in _words(pip, "constraint")]
    if "uploaded-prior-to" in pip:
        found.append(f"pip's configuration: uploaded-prior-to {pip['uploaded-prior-to']}")
    for name, what in _NARROWING_VARIABLES.items():
        if os.environ.get(name):
            found.append(f"{name}: {what} {os.environ[name]}")
    for path, settings in _uv_files(workspace=False):
        found += [f"{path}: {key} {settings[key]}" for key in _NARROWING_KEYS if key in settings]
    return tuple(without_logins(text) for text in found)


def pip_settings() -> Mapping[str, str]:
    """pip's configuration by option, as `pip install` would read it: files and variables."""
    relevant = ("PIP_", "XDG_CONFIG", "HOME")
    return _pip_settings(tuple(sorted(i for i in os.environ.items() if i[0].startswith(relevant))))


def configured_urls(variables: Mapping[str, str]) -> Iterator[str]:
    """Where pip and uv look, by `variables` as of `uv_variables`: URLs, or `NAME=URL`."""
    for setting in ("index-url", "extra-index-url", "find-links"):
        for name in _OWN_SETTINGS[setting]:
            yield from re.split(r"[\s,]+", variables.get(name, ""))
    for _, settings in _uv_files(workspace=True):
        for index in settings.get("index", ()):
            yield f"{index.get('name', '')}={index.get('url', '')}"


@lru_cache(maxsize=8)
def _pip_settings(_environment: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    """`_environment` is what the answer depends on, for the cache."""
    import ast
    import subprocess

    # -P: a folder named `pip` in the current folder is not pip.
    command = [sys.executable, "-P", "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if "No module named pip" in done.stderr:
            return {}
        raise ModelbuildError(
            "pip's configuration can't be read",
            facts=[("pip says", without_logins(done.stderr.strip()))],
            hint="See: python -m pip config debug",
        )
    settings: dict[str, str] = {}
    by_section: dict[str, dict[str, str]] = {}
    for line in done.stdout.splitlines():
        key, separator, value = line.partition("=")
        section, dot, option = key.rpartition(".")
        if separator and dot:
            option = option.replace("_", "-").removeprefix("default-")
            by_section.setdefault(section, {})[option] = str(ast.literal_eval(value))
    for section in ("global", "download", "install", ":env:"):
        settings |= by_section.get(section, {})
    return settings


def _for_uv(setting: str, pip: Mapping[str, str]) -> str | None:
    """The value that uv's variable for one of pip's settings gets."""
    if setting == "find-links":
        return ",".join(_locations(pip))
    if setting == "index-url" and _is_true(pip.get("no-index")):
        return _NO_INDEX
    if setting == "extra-index-url" and _is_true(pip.get("no-index")):
        return None
    if setting == "cert":
        bundles = (os.environ.get("REQUESTS_CA_BUNDLE"), os.environ.get("CURL_CA_BUNDLE"))
        return pip.get("cert") or next(filter(None, bundles), None)
    if setting == "timeout":
        return pip["timeout"].split(".")[0] if "timeout" in pip else None
    return " ".join(_words(pip, setting))


def _locations(pip: Mapping[str, str]) -> Iterator[str]:
    """find-links as URLs, whose commas and spaces are quoted. pip passes over missing folders."""
    for location in _words(pip, "find-links"):
        if "://" in location:
            yield location
        elif (path := Path(location).expanduser().absolute()).exists():
            yield path.as_uri()


def _add_constraints(variables: dict[str, str], pip: Mapping[str, str]) -> None:
    if os.environ.get("UV_CONSTRAINT"):
        return
    paths = _words(pip, "constraint")
    # As URLs: uv splits the variable at spaces.
    uris = [p if "://" in p else Path(p).expanduser().absolute().as_uri() for p in paths]
    if uris:
        variables["UV_CONSTRAINT"] = " ".join(uris)


def _words(pip: Mapping[str, str], setting: str) -> Sequence[str]:
    return pip.get(setting, "").split()


def _is_true(value: str | None) -> bool:
    return (value or "").lower() in ("1", "true", "yes", "on", "y", "t")


def _uv_file_keys() -> Iterator[str]:
    """Which of pip's settings uv's own configuration files decide."""
    for _, settings in _uv_files(workspace=True):
        for setting in ("index-url", "extra-index-url", "find-links"):
            if setting in settings:
                yield setting
        for index in settings.get("index", ()):
            yield "index-url" if index.get("default") else "extra-index-url"
        if "allow-insecure-host" in settings:
            yield "trusted-host"


def _uv_files(*, workspace: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The configuration files that uv reads here, with their settings; `[pip]` is merged in."""
    import tomllib

    for path in _uv_paths(workspace=workspace):
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # absent, or for uv to complain about
        if path.name == "pyproject.toml":
            settings = settings.get("tool", {}).get("uv", {})
        yield path, settings | settings.get("pip", {})


def _uv_paths(*, workspace: bool) -> Iterator[Path]:
    """See uv's documentation, "Configuration files"."""
    if os.environ.get("UV_NO_CONFIG"):
        return
    if named := os.environ.get("UV_CONFIG_FILE"):
        yield Path(named)
        return
    if workspace:
        here = Path.cwd()
        candidates = [f / n for f in (here, *here.parents) for n in ("uv.toml", "pyproject.toml")]
        yield from (path for path in candidates if path.is_file())
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    yield Path(home, "uv", "uv.toml")
    system = os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    yield from (Path(folder, "uv", "uv.toml") for folder in system.split(":") if folder)
    yield Path("/etc/uv/uv.toml")
