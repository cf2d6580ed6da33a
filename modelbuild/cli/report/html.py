"""HTML that escapes by construction: whatever is not Markup is text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

_VOID = ("meta", "br", "link")
# Characters that could make text look like other text: controls, and those that turn its direction.
_UNSEEN = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code not in (9, 10)},
    **{code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    **{code: f"\\u{code:04x}" for code in (0x200E, 0x200F, 0x061C, 0xFEFF)},
    **dict.fromkeys(range(55296, 57344), "�"),
}


class Markup(str):
    """HTML; any other string is text."""

    __slots__ = ()


Child: TypeAlias = "str | Markup | Iterable[Child] | None"


def tag(name: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """An element. `class_` is `class`, `data_x` is `data-x`; False and None leave one out."""
    written = "".join(
        f" {_name(key)}" if value is True else f' {_name(key)}="{_text(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Child) -> Markup:
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return Markup(_text(children))
    return Markup("".join(map(join, children)))


def data(content: object) -> Markup:
    """JSON for a script to read; no `<` in it can end the element."""
    text = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(f'<script type="application/json">{text}</script>')


def anchor(*parts: str) -> str:
    """The id of an element, another one for each list of parts."""
    return "--".join(
        "".join(c if c.isascii() and (c.isalnum() or c in "_.") else f"~{ord(c):x}~" for c in part)
        for part in parts
    )


def _name(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _text(text: str) -> str:
    return escape(text.translate(_UNSEEN))
