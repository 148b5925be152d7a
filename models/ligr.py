"""LiGR: SASRec of gated blocks."""

from mindspore import ops

from models.layers import Dense, dropout
from models.sasrec import Block, SASRec, columns, newest, onnx_newest, onnx_norm


class GatedBlock(Block):
    """A block whose halves pass gates: x + sigmoid(G x) * attention(norm(x)), and alike with a SwiGLU network of twice
    the width, W (silu(U x) * V x), in place of the feed-forward one. Arguments as those of `Block`."""

    def __init__(self, width, num_heads, dropout):
        super().__init__(width, num_heads, dropout)
        self.first_gate, self.second_gate = Dense(width, width), Dense(width, width)
        self.hidden, self.open, self.out = Dense(width, 2 * width), Dense(width, 2 * width), Dense(2 * width, width)

    def construct(self, x, allowed, noise):
        """As of `Block`."""
        found = self.attention(self.first_norm(x), allowed)
        x = newest(x, allowed)
        found = found * ops.sigmoid(self.first_gate(x))
        x = x + dropout(found, columns(noise, 0, self.width), self.share)
        inner = self.feed_forward(self.second_norm(x)) * ops.sigmoid(self.second_gate(x))
        return x + dropout(inner, columns(noise, self.width, self.width), self.share)

    def feed_forward(self, x):
        """(R, E) -> (R, E)."""
        opened = self.open(x)
        return self.out(self.hidden(x) * opened * ops.sigmoid(opened))

    def onnx(self, graph, x, allowed, places):
        """As of `Block`."""
        found = self.onnx_attention(graph, onnx_norm(graph, self.first_norm, x), allowed, places)
        x = onnx_newest(graph, x, places)
        x = graph("Add", x, graph("Mul", found, graph("Sigmoid", self.first_gate.onnx(graph, x))))
        inner = self.onnx_feed_forward(graph, onnx_norm(graph, self.second_norm, x))
        return graph("Add", x, graph("Mul", inner, graph("Sigmoid", self.second_gate.onnx(graph, x))))

    def onnx_feed_forward(self, graph, x):
        """As `feed_forward`, (B, Q, E)."""
        opened = self.open.onnx(graph, x)
        silu = graph("Mul", opened, graph("Sigmoid", opened))
        return self.out.onnx(graph, graph("Mul", self.hidden.onnx(graph, x), silu))


class LiGR(SASRec):
    """SASRec with the gated blocks of LinkedIn's ranking model (Borisyuk et al., "From Features to Transformers:
    Redefining Ranking for Scalable Impact", 2025), which eSASRec (Tikhonovich et al., RecSys 2025) found to improve it
    most. Arguments as those of `SASRec`."""

    block = GatedBlock
