"""The `[environment]` table of a recipe."""

from __future__ import annotations

import re

from modelbuild.spec.logins import without_logins
from modelbuild.spec.recipe import Environment
from modelbuild.spec.recipe_data import package_name
from modelbuild.spec.recipe_fields import Table, describe, listing, printable
from modelbuild.spec.recipe_paths import workspace_path

_PACKAGES = ("packages", "project", "requirements")
_KNOWN = (
    *("python", *_PACKAGES, "extras"),
    *("resolver", "platform", "from-source", "exclude-newer", "base"),
)
_PYTHON = re.compile(r"3\.(0|[1-9][0-9]{0,3})(\.(0|[1-9][0-9]{0,3}))?")
_PLATFORM = re.compile(r"x86_64-manylinux_2_[1-9][0-9]?")
_DATE = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))?"
)
_VERSION = r"[0-9]+(\.[0-9]+)*((a|b|rc|\.post|\.dev)[0-9]+)?"
_COMMON_REQUIREMENT = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
    r"(\[[A-Za-z0-9]+(,[A-Za-z0-9]+)*\])?"
    rf"( *(==|!=|>=|<=|>|<) *{_VERSION}(, *(==|!=|>=|<=|>|<) *{_VERSION})*)?"
)


def read_environment(table: Table) -> Environment:
    table.only(_KNOWN)
    table.require("python", 'python = "3.11"')
    kinds = [key for key in _PACKAGES if key in table.values]
    if len(kinds) != 1:
        table.fail(
            kinds[1] if kinds else "",
            f"[environment] has {'several lists' if kinds else 'no list'} of packages",
            wanted=f"exactly one of {listing(_PACKAGES)}",
            found=listing(kinds or table.values),
        )
    if "extras" in table.values and kinds != ["project"]:
        table.fail(
            "extras",
            f"{table.named('extras')} does not go with '{kinds[0]}'",
            wanted="extras of a project",
            found=listing(kinds),
            hint='With packages, extras stand in brackets: "name[extra]"',
        )
    return Environment(
        python=_read_python(table),
        packages=_read_packages(table),
        project=_read_file(table, "project"),
        extras=tuple(package_name(table, "extras", name) for name in table.texts("extras", ())),
        requirements=_read_file(table, "requirements"),
        resolver=table.choice("resolver", "uv", ("uv", "pip-tools")),
        platform=_read_platform(table),
        from_source=_read_from_source(table),
        exclude_newer=_read_exclude_newer(table),
        base=_read_base(table),
    )


def _read_python(table: Table) -> str:
    wanted = 'a version in quotes: "3.11", or an exact "3.11.7"'
    version = table.text("python", "", wanted)
    if not _PYTHON.fullmatch(version):
        table.fail(
            "python",
            f"{table.named('python')} is not a version of Python",
            wanted=wanted,
            found=describe(version),
        )
    return version


def _read_packages(table: Table) -> tuple[str, ...] | None:
    packages = table.texts("packages", None)
    for requirement in packages or ():
        if not is_common_requirement(requirement):
            _check_requirement(table, requirement)
    return packages


def is_common_requirement(text: str) -> bool:
    """Whether it is valid at first sight: importing `packaging` takes 15 ms."""
    return _COMMON_REQUIREMENT.fullmatch(text) is not None


def _check_requirement(table: Table, text: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        url = Requirement(text).url
    except InvalidRequirement:
        meant = re.sub(r"(?<![=<>!~])=(?!=)", "==", text, count=1)
        table.fail(
            "packages",
            f"{table.named('packages')} has an invalid requirement",
            wanted='a name and versions as in "torch==2.13.0" or "scikit-learn>=1.7,<2"',
            found=printable(without_logins(text)) or "an empty string",
            hint=f"Did you mean '{meant}'?" if is_common_requirement(meant) else None,
        )
    if url is not None:
        table.fail(
            "packages",
            f"{table.named('packages')} has a requirement by URL, which is not supported",
            wanted="a name and versions; any index or folder that pip or uv knows may deliver it",
            found=printable(without_logins(text)),
        )


def _read_file(table: Table, key: str) -> str | None:
    path = table.text(key, None)
    return None if path is None else workspace_path(table, key, path)


def _read_platform(table: Table) -> str:
    platform = table.text("platform", "x86_64-manylinux_2_28")
    if not _PLATFORM.fullmatch(platform):
        table.fail(
            "platform",
            f"{table.named('platform')} is not a platform that can be built for",
            wanted="x86_64-manylinux_2_NN, the NN of the oldest glibc",
            found=printable(platform),
            hint="Did you mean 'x86_64-manylinux_2_28'?",
        )
    return platform


def _read_from_source(table: Table) -> tuple[str, ...]:
    names = table.texts("from-source", ())
    return tuple(sorted({package_name(table, "from-source", name) for name in names}))


def _read_exclude_newer(table: Table) -> str | None:
    from datetime import datetime

    wanted = 'a date in quotes: "2026-01-31" or "2026-01-31T12:00:00Z"'
    text = table.text("exclude-newer", None, wanted)
    if text is None:
        return None
    try:
        if not re.fullmatch(_DATE, text):
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError:
        table.fail(
            "exclude-newer",
            f"{table.named('exclude-newer')} is not a date or a time with its offset",
            wanted=wanted,
            found=describe(text),
        )
    return text


def _read_base(table: Table) -> str:
    base = table.choice("base", "host", ("host", "interpreter"))
    if base == "interpreter" and table.text("resolver", "uv") != "uv":
        table.fail(
            "resolver",
            f'{table.named("resolver")} does not go with base = "interpreter"',
            wanted="uv, which can resolve around packages that are there already",
            found="pip-tools",
        )
    return base
