"""Train the GPT on random windows of the text."""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from gpt import checkpoint
from gpt.model import GPT
from gpt.text import random_batch


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="output of the preparation")
    for name in ("context", "width", "heads", "layers", "steps", "batch-size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--lr", type=float, default=0.006)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    return parser.parse_args()


def main():
    options = parse_arguments()
    torch.manual_seed(options.seed)
    tokens = torch.from_numpy(np.load(options.tokens / "train.npy")).long()
    alphabet = json.loads((options.tokens / "alphabet.json").read_text())
    shape = {
        "alphabet": len(alphabet),
        "context": options.context,
        "width": options.width,
        "heads": options.heads,
        "layers": options.layers,
    }
    model = GPT(**shape)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, options.steps)

    curve = []
    for step in range(1, options.steps + 1):
        inputs, targets = random_batch(tokens, options.batch_size, options.context)
        loss = cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.append(loss.item())
        if step % 50 == 0:
            print(f"step {step:4}  loss {sum(curve[-50:]) / 50:.4f}")

    checkpoint.save(model, shape, options.out)
    with open(options.out / "train.jsonl", "w") as file:
        for step, value in enumerate(curve, start=1):
            file.write(json.dumps({"step": step, "loss": value}) + "\n")
    last = curve[-50:]
    (options.out / "metrics.json").write_text(json.dumps({"loss": sum(last) / len(last)}))


if __name__ == "__main__":
    main()
