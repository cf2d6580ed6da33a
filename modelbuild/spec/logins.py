"""User names and passwords in URLs: nothing that is shown or locked has them."""

from __future__ import annotations

import re


def without_logins(text: str) -> str:
    """`text` without the user names and passwords in its URLs, also those that lack a scheme."""
    return re.sub(r"(://|(?<!\S)(?=[^\s/@]+:))[^/\s]*@", r"\1", text)


def split_query(url: str) -> tuple[str, bool]:
    """A URL without its login and query, which may hold a signature, and whether it has one."""
    start, question, _ = url.partition("?")
    return without_logins(start), bool(question)
