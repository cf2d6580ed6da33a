"""Tokens in, tokens out: batches of the training text, and new text."""

import torch


def random_batch(tokens, size, context):
    """`size` random windows: (size, context) inputs, and the same one character later."""
    starts = torch.randint(len(tokens) - context, (size,))
    windows = torch.stack([tokens[start : start + context + 1] for start in starts.tolist()])
    return windows[:, :-1], windows[:, 1:]


def windows(tokens, context):
    """All of the text, cut into windows that follow each other; what is left over is dropped."""
    count = (len(tokens) - 1) // context
    inputs = tokens[: count * context].reshape(count, context)
    targets = tokens[1 : count * context + 1].reshape(count, context)
    return inputs, targets


@torch.no_grad()
def continue_text(model, tokens, length, temperature=0.8):
    """`length` more tokens after `tokens`, drawn one by one."""
    for _ in range(length):
        logits = model(tokens[None, -model.context :])[0, -1]
        drawn = torch.multinomial(torch.softmax(logits / temperature, dim=0), 1)
        tokens = torch.cat([tokens, drawn])
    return tokens
