"""A small GPT over characters."""
