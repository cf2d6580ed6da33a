"""Bits for each character of the test text, and a sample of what the GPT writes."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from gpt import checkpoint
from gpt.text import continue_text, windows

WINDOWS = 1024
SAMPLE = 600


@torch.no_grad()
def bits_per_character(model, tokens):
    inputs, targets = windows(tokens, model.context)
    losses = [
        cross_entropy(model(some).flatten(0, 1), wanted.flatten(), reduction="sum").item()
        for some, wanted in zip(
            inputs[:WINDOWS].split(64), targets[:WINDOWS].split(64), strict=True
        )
    ]
    return sum(losses) / targets[:WINDOWS].numel() / math.log(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="output of the preparation")
    parser.add_argument("--model", type=Path, required=True, help="output of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    alphabet = json.loads((options.tokens / "alphabet.json").read_text())
    tokens = torch.from_numpy(np.load(options.tokens / "test.npy")).long()
    model = checkpoint.load(options.model)
    bits = bits_per_character(model, tokens)
    start = torch.tensor([alphabet.index("\n")])
    sample = "".join(alphabet[token] for token in continue_text(model, start, SAMPLE).tolist())

    print(f"{bits:.4f} bits per character\n{sample.strip()}")
    (options.out / "metrics.json").write_text(json.dumps({"bits_per_character": bits}))
    (options.out / "sample.txt").write_text(sample.strip() + "\n")


if __name__ == "__main__":
    main()
