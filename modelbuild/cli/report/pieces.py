"""What several sections of the page are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from modelbuild.cli.report.html import Child, Markup, join, tag
from modelbuild.review.report import RunOfStage
from modelbuild.spec.canonical import Json
from modelbuild.spec.toml_text import toml_value

GOOD, FAIR, BAD, PLAIN = "good", "fair", "bad", "plain"
NOTHING = "\N{EN DASH}"
_LONG = 30
"""Characters of a cell that keeps room for several words a line."""
_SIGNS = {GOOD: "✓", FAIR: "!", BAD: "✗", PLAIN: NOTHING}
_KINDS = {
    "current": GOOD,
    "intact": GOOD,
    "holds": GOOD,
    "identical": GOOD,
    "within tolerance": FAIR,
    "other class": FAIR,
    "stale": BAD,
    "corrupt": BAD,
    "broken": BAD,
    "untrue": BAD,
    "different": BAD,
    "missing": BAD,
}
"""Every other word of `verify` tells of what could not be looked at."""


def badge(words: str, kind: str | None = None) -> Markup:
    """A verdict in words; sign and colour only repeat them."""
    kind = kind or _KINDS.get(words, PLAIN)
    sign = tag("span", _SIGNS[kind], aria_hidden="true")
    return tag("span", sign, " ", words, class_=f"badge {kind}")


def digest(text: str) -> Markup:
    """All of it, where lines may be broken."""
    return tag("code", text, class_="digest")


def short(text: str) -> Markup:
    """The beginning of a digest; all of it when it is pointed at."""
    return tag("code", text[:15], title=text)


def facts(pairs: Iterable[tuple[str, Child]]) -> Markup:
    """Names with what they are; those without a value are left out."""
    return tag(
        "dl",
        [(tag("dt", name), tag("dd", value)) for name, value in pairs if value not in (None, "")],
        class_="facts",
    )


def table(
    caption: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    numbers: Sequence[int] = (),
) -> Markup:
    """The first cell of a row is its header; columns in `numbers` are aligned to the right.

    A wide table scrolls in itself, also by keyboard.
    """
    head = [
        tag("th", name, scope="col", class_=_class(place, name, numbers))
        for place, name in enumerate(header)
    ]
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            [tag("td", c, class_=_class(i, c, numbers)) for i, c in enumerate(row[1:], start=1)],
        )
        for row in rows
    ]
    inner = tag("table", tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body))
    return tag("div", inner, class_="scroll", role="region", aria_label=caption, tabindex="0")


def _class(place: int, cell: Child, numbers: Sequence[int]) -> str | None:
    if place in numbers:
        return "number"
    if isinstance(cell, str) and not isinstance(cell, Markup) and len(cell) > _LONG:
        return "long"
    return None


def folded(summary: Child, *content: Child, id_: str | None = None, open_: bool = False) -> Markup:
    return tag("details", tag("summary", summary), content, id=id_, open=open_)


def setting(value: Json | tuple[object, ...]) -> str:
    return NOTHING if value is None else toml_value(value)  # type: ignore[arg-type]  # JSON is


def settings_words(values: Mapping[str, Json]) -> str:
    return ", ".join(f"{name} {setting(value)}" for name, value in sorted(values.items()))


def varying(found: Sequence[RunOfStage]) -> list[str]:
    """The settings in which runs are not all the same, sorted."""
    seen: dict[str, set[str]] = {}
    for each in found:
        for name in {name for other in found for name in other.settings}:
            seen.setdefault(name, set()).add(repr(each.settings.get(name)))
    return sorted(name for name, values in seen.items() if len(values) > 1)


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def section(title: str, *content: Child, level: int = 3, id_: str | None = None) -> Markup:
    """Nothing where there is no content."""
    inner = join(content)
    if not inner:
        return Markup()
    return tag("section", tag(f"h{level}", title), inner, id=id_)
