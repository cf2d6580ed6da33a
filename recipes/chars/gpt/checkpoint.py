"""A model as two files: its weights, and the numbers that give it its shape."""

import json

from safetensors.torch import load_file, save_file

from gpt.model import GPT


def save(model, shape, folder):
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "shape.json").write_text(json.dumps(shape, sort_keys=True))


def load(folder):
    model = GPT(**json.loads((folder / "shape.json").read_text()))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()
