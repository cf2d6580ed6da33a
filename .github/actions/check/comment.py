"""Keep one comment of a pull request in step with the report of `modelbuild ci`.

    comment.py FOLDER      which holds report.json and models.md

Found again by a mark in its first line, changed in place, and removed when nothing differs. A
token that may only read, as pull requests from forks have it, is no failure: the report is in the
job's summary as well. Standard library only; the API is that of GitHub, version 2022-11-28.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

MARK = "<!-- modelbuild: models -->"
AUTHOR = "github-actions[bot]"
LONGEST = 65_000
"""Characters; the site takes 65,536."""
MOST_PAGES = 100
NOT_ALLOWED = (
    "The report is in the job's summary and not in a comment: the token of this job may not write"
    " comments. Pull requests from forks never have one that may; otherwise add to the job"
    " `permissions: pull-requests: write`."
)


def main(folder: Path) -> int:
    if not (folder / "models.md").exists():
        return 0  # the check did not come so far, and said why
    report = json.loads((folder / "report.json").read_text())
    differs = report["problems"] or (report["difference"] and report["difference"]["recipes"])
    text = (folder / "models.md").read_text()
    try:
        keep(shortened(f"{MARK}\n{text}") if differs else None)
    except HTTPError as error:
        if error.code in (401, 403, 404):
            print(f"::notice::{NOT_ALLOWED}")
        else:
            print(f"::warning::The comment could not be written: HTTP {error.code}")
    except (URLError, TimeoutError) as error:
        reason = str(getattr(error, "reason", error)).replace("\n", " ")
        print(f"::warning::The comment could not be written: {reason}")
    return 0


def keep(body: str | None) -> None:
    """Have one comment that says `body`; without a body, none."""
    repository = f"/repos/{os.environ['GITHUB_REPOSITORY']}"
    comments = f"{repository}/issues/{int(os.environ['PULL_REQUEST'])}/comments"
    first, *others = [*ours(comments), None]
    if body is None:
        others.insert(0, first)
    elif first is None:
        call("POST", comments, {"body": body})
    elif first["body"] != body:
        call("PATCH", f"{repository}/issues/comments/{first['id']}", {"body": body})
    for other in others:  # two jobs may have begun at once
        if other is not None:
            call("DELETE", f"{repository}/issues/comments/{other['id']}")


def ours(comments: str) -> Iterator[dict]:
    """Others may write the mark into their comments, which are not ours to change."""
    for page in range(1, MOST_PAGES + 1):
        found = call("GET", f"{comments}?per_page=100&page={page}")
        for comment in found:
            if comment["user"]["login"] == AUTHOR and comment["body"].startswith(MARK):
                yield comment
        if len(found) < 100:
            return


def shortened(text: str) -> str:
    """By whole lines; what is open is closed, and what is missing is said."""
    if len(text) <= LONGEST:
        return text
    kept = text[:LONGEST].rpartition("\n")[0]
    kept += "\n\n</details>" * (kept.count("<details>") - kept.count("</details>"))
    return f"{kept}\n\n**This is not all of it: the rest is in the job's summary.**\n"


def call(method: str, path: str, content: dict | None = None):
    request = Request(  # noqa: S310 - the runner sets the address
        os.environ["GITHUB_API_URL"] + path,
        method=method,
        data=None if content is None else json.dumps(content).encode(),
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {os.environ['GITHUB_TOKEN']}",
            "Content-Type": "application/json",
            "User-Agent": "modelbuild",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    with urlopen(request, timeout=30) as answer:  # noqa: S310
        data = answer.read()
    return json.loads(data) if data else None


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
