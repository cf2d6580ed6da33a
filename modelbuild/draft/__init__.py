"""A first recipe for a folder with a training script: `modelbuild init`."""
