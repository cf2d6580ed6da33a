"""The network: a decoder-only transformer with learnt positions."""

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention over (batch, time, width)."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, x):
        batch, time, width = x.shape
        split = self.inputs(x).reshape(batch, time, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(batch, time, width))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.before_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.before_network = nn.LayerNorm(width)
        self.network = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x):
        x = x + self.attention(self.before_attention(x))
        return x + self.network(self.before_network(x))


class GPT(nn.Module):
    """From (batch, time) tokens to (batch, time, alphabet) logits of the next one."""

    def __init__(self, *, alphabet, context, width, heads, layers):
        super().__init__()
        self.context = context
        self.characters = nn.Embedding(alphabet, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, alphabet)

    def forward(self, tokens):
        positions = torch.arange(tokens.shape[1])
        x = self.characters(tokens) + self.positions(positions)
        return self.logits(self.norm(self.blocks(x)))
