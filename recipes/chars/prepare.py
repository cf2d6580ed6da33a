"""Turn the verses of a SQLite database into arrays of tokens, one token a character."""

import argparse
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

VERSES = """
    SELECT Index_, Passage1 FROM Bible
    WHERE Passage1 != '' ORDER BY TestamentID, BookID, ChapterID, VerseID
"""


def read_text(path):
    """The verses in their order, one a line, without their numbers."""
    address = f"{Path(path).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as database:
        verses = [text.removeprefix(index).strip() for index, text in database.execute(VERSES)]
    return "\n".join(verses) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", help="Bible.db")
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    options = parser.parse_args()

    text = read_text(options.text)
    alphabet = sorted(set(text))
    token = {character: number for number, character in enumerate(alphabet)}
    tokens = np.array([token[character] for character in text], dtype=np.uint8)
    split = len(tokens) * 9 // 10
    np.save(options.out / "train.npy", tokens[:split])
    np.save(options.out / "test.npy", tokens[split:])
    (options.out / "alphabet.json").write_text(json.dumps(alphabet))
    metrics = {"characters": len(tokens), "alphabet": len(alphabet)}
    (options.out / "metrics.json").write_text(json.dumps(metrics))
    print(f"{len(tokens):,} characters, {len(alphabet)} different ones")


if __name__ == "__main__":
    main()
