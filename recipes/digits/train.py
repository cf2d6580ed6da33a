"""Train the network and save its weights, with the learning curve beside them."""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from digits import load
from net import Net


def train_epoch(net, batches, optimizer, schedule):
    """The mean loss of one pass over the training set."""
    net.train()
    total = 0.0
    for images, labels in batches:
        loss = cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item() * len(labels)
    return total / len(batches.dataset)


@torch.no_grad()
def accuracy(net, dataset):
    net.eval()
    images, labels = dataset.tensors
    return (net(images).argmax(1) == labels).float().mean().item()


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="digits.csv.gz")
    parser.add_argument("--lr", type=float, default=0.002)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--out", type=Path, required=True, help="an existing folder")
    return parser.parse_args()


def main():
    options = parse_arguments()
    train, test = load(options.data)
    batches = DataLoader(train, batch_size=options.batch_size, shuffle=True)
    net = Net(options.dropout)
    optimizer = torch.optim.AdamW(net.parameters(), lr=options.lr)
    steps = options.epochs * len(batches)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    curve = []
    for epoch in range(1, options.epochs + 1):
        loss = train_epoch(net, batches, optimizer, schedule)
        curve.append({"epoch": epoch, "loss": loss, "accuracy": accuracy(net, test)})
        print(f"epoch {epoch:2}  loss {loss:.4f}  accuracy {curve[-1]['accuracy']:.4f}")

    save_file(net.state_dict(), options.out / "model.safetensors")
    with open(options.out / "train.jsonl", "w") as file:
        file.writelines(json.dumps(point) + "\n" for point in curve)
    with open(options.out / "metrics.json", "w") as file:
        json.dump({"loss": curve[-1]["loss"]}, file)


if __name__ == "__main__":
    main()
