"""The two-tower and all-to-all models of this project as one would write them in PyTorch, for `training_speed`."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class TorchModel(nn.Module):
    """Training loss of a batch: sampled softmax over negatives that its rows share, plus L2 on the history.

    Args:
        h: `work.Hyperparameters`, settled.
        n_items: size of the catalogue.
    """

    def __init__(self, h, n_items: int):
        super().__init__()
        self.l2, width = h.l2, h.embedding_size
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        nn.init.normal_(self.items.weight, std=h.embedding_std)
        self.every_position = h.encoder != "DNN"
        self.encoder = ENCODERS[h.encoder](h)
        self.heads = Heads(h) if not self.every_position and h.model != "TwoTower" else None
        self.network, self.project = None, nn.Identity()
        if h.interaction == "DNN":
            self.network, self.project = Network(h), nn.Linear(width, h.token_embedding_size, bias=False)
            nn.init.eye_(self.project.weight)

    def forward(self, history, positive, negative, log_expected):
        """history (B, L), positive (B,) or (B, L), negative (N,), log_expected (N,) -> the mean loss."""
        mask = history > 0
        embeddings = self.items(history)  # (B, L, E)
        target = positive.reshape(-1)  # (R,)
        if self.every_position:
            tokens = self.encoder(embeddings, mask).flatten(0, 1)[target > 0].unsqueeze(1)  # (R', 1, E)
            target = target[target > 0]
        elif self.heads is None:
            tokens = self.encoder(embeddings, mask.unsqueeze(1))  # (B, 1, E)
        else:
            tokens = self.heads(self.encoder(embeddings, self.heads.views(mask)))  # (B, K_u, E)
        candidates = self.items(negative)
        own, others = self.items(target), self.score(tokens, candidates)  # (R, E), (R, N)
        first = (tokens.sum(1) * self.project(own)).sum(1, keepdim=True)
        if self.network is not None:
            first = first + self.network(tokens, own.unsqueeze(1)).sum(1)
        others = (others - log_expected).masked_fill(target.unsqueeze(1) == negative, -1e9)
        logits = torch.cat((first, others), 1)
        ranking = F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
        return ranking + self.l2 * embeddings.square().sum() / mask.sum().clamp(min=1)

    def score(self, tokens, items):
        """(R, K, E) x (N, E) -> (R, N); of a dot product the tokens' sum is scored."""
        scores = tokens.sum(1) @ self.project(items).T
        return scores if self.network is None else scores + self.network(tokens, items).sum(1)


class Network(nn.Module):
    """The DNN interaction with its first layer split, as ours."""

    def __init__(self, h):
        super().__init__()
        width, hidden = h.token_embedding_size, h.interaction_hidden
        self.item_heads = nn.Linear(h.embedding_size, h.K_i * width)
        self.token_half, self.item_half = nn.Linear(width, hidden[0]), nn.Linear(h.K_i * width, hidden[0], bias=False)
        self.deeper = nn.ModuleList(nn.Linear(a, b) for a, b in zip(hidden[:-1], hidden[1:], strict=True))
        self.out = nn.Linear(hidden[-1], 1)

    def forward(self, tokens, items):
        """tokens (R, K, E), items (N, E) or (R, 1, E) -> (R, K, N)."""
        items = self.item_half(self.item_heads(items))
        items = items[:, None] if items.ndim == 3 else items
        x = F.relu(self.token_half(tokens).unsqueeze(2) + items)  # (R, K, N, H)
        for layer in self.deeper:
            x = F.relu(layer(x))
        return self.out(x).squeeze(3)


class Heads(nn.Module):
    """Windows of the newest items, and a Dense layer for each."""

    def __init__(self, h):
        super().__init__()
        age = torch.arange(h.seq_len, 0, -1)
        lengths = torch.tensor([-(-h.seq_len // 2**k) for k in range(h.K_u)])
        self.register_buffer("windows", age <= lengths[:, None])  # (K_u, L)
        start = torch.eye(h.embedding_size, h.token_embedding_size).expand(h.K_u, -1, -1)
        self.weight = nn.Parameter(start + 0.01 * torch.randn(start.shape))
        self.bias = nn.Parameter(torch.zeros(h.K_u, 1, h.token_embedding_size))

    def views(self, mask):
        return mask.unsqueeze(1) & self.windows  # (B, K_u, L)

    def forward(self, vectors):
        return (torch.bmm(vectors.transpose(0, 1), self.weight) + self.bias).transpose(0, 1)


class DNN(nn.Module):
    """Means of the history under masks, an MLP beside a shortcut."""

    def __init__(self, h):
        super().__init__()
        widths, layers = (h.embedding_size, *h.hidden), []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(a, b), nn.ReLU(), nn.Dropout(h.dropout)]
        self.mlp = nn.Sequential(*layers, nn.Linear(widths[-1], h.embedding_size))
        self.drop = nn.Dropout(h.history_dropout)

    def forward(self, embeddings, masks):
        weights = masks / masks.sum(2, keepdim=True).clamp(min=1)
        mean = self.drop(torch.bmm(weights, embeddings))  # (B, V, E)
        return mean + self.mlp(mean)


class GRU4Rec(nn.Module):
    """One GRU layer."""

    def __init__(self, h):
        super().__init__()
        self.drop = nn.Dropout(h.history_dropout)
        self.gru = nn.GRU(h.embedding_size, h.embedding_size, batch_first=True)

    def forward(self, embeddings, mask):
        return self.gru(self.drop(embeddings * mask.unsqueeze(2)))[0]


class Attention(nn.Module):
    """Causal attention by PyTorch's fused operator."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.into, self.merge = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x, allowed):
        batch, length, width = x.shape
        parts = self.into(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(*parts, attn_mask=allowed)
        return self.merge(found.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Of SASRec: attention and a feed-forward network, layer norm before each."""

    def __init__(self, h):
        super().__init__()
        width = h.embedding_size
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.drop = Attention(width, h.num_heads), nn.Dropout(h.dropout)
        self.feed = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x, allowed):
        x = x + self.drop(self.attention(self.first(x), allowed))
        return x + self.drop(self.feed(self.second(x)))


class GatedBlock(Block):
    """Of LiGR: both halves pass gates, the second is a SwiGLU network."""

    def __init__(self, h):
        super().__init__(h)
        width = h.embedding_size
        self.first_gate, self.second_gate = nn.Linear(width, width), nn.Linear(width, width)
        self.hidden, self.open, self.feed = (
            nn.Linear(width, 2 * width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )

    def forward(self, x, allowed):
        x = x + self.drop(self.attention(self.first(x), allowed) * torch.sigmoid(self.first_gate(x)))
        y = self.second(x)
        return x + self.drop(self.feed(self.hidden(y) * F.silu(self.open(y))) * torch.sigmoid(self.second_gate(x)))


class SASRec(nn.Module):
    """Causal self-attention with learned positions."""

    block = Block

    def __init__(self, h):
        super().__init__()
        self.positions = nn.Parameter(0.1 * torch.randn(h.seq_len, h.embedding_size))
        self.blocks = nn.ModuleList(self.block(h) for _ in range(h.att_layer))
        self.drop, self.norm = nn.Dropout(h.dropout), nn.LayerNorm(h.embedding_size)
        self.register_buffer("past", torch.tril(torch.ones(h.seq_len, h.seq_len, dtype=torch.bool)))

    def forward(self, embeddings, mask):
        x = self.drop(embeddings * math.sqrt(embeddings.shape[2]) + self.positions)
        # A query in the padding sees itself, or its softmax would be of nothing.
        own = torch.eye(len(self.past), dtype=torch.bool)
        allowed = (self.past & mask.unsqueeze(1) | own).unsqueeze(1)  # (B, 1, L, L)
        for block in self.blocks:
            x = block(x, allowed)
        return self.norm(x)


class LiGR(SASRec):
    """SASRec of gated blocks."""

    block = GatedBlock


ENCODERS = {"DNN": DNN, "GRU4Rec": GRU4Rec, "SASRec": SASRec, "LiGR": LiGR}
