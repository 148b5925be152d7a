"""Token quantisers: M codebooks turn a token into a code tuple, and the tuple into one integer."""

import numpy as np
from mindspore import nn, ops

from models.vq.nearest import nearest_codewords
from models.vq.quantiser import Quantiser
from models.vq.rotation import turned
from models.vq.vq import VectorQuantiser


class TokenQuantiser(Quantiser):
    """M codebooks of N codewords, shared by all tokens (SparCode, overview figure), with error feedback.

    A subclass says how the codebooks share the work: `_match`, `start` (k-means, of the tokens as they are, without
    feedback; their look-ups are never open) and `tables`.

    Error feedback: the first token of a user is quantised as it is; each later one is asked to hold, beside itself,
    what quantisation lost of those before it (error diffusion, as in half-toning: Floyd and Steinberg, 1976). Scores
    add up over tokens, so as far as a score is linear in the token, errors cancel where they would add up.

    Look-ups: to score with, a token gets not one code but several, each holding beside the token what the codes before
    it lost, so that their mean comes closer to the token with every one: soft look-up of one and the same lists.
    Training sees the first code of each token, at the cost of one; but all codes of a user's only token, which no
    other could make up for. `indices` finds them outside the graph.

    Args:
        num_codebooks: M.
        K_c: N, codewords per codebook.
        token_embedding_size: D, of a token.
        token_lookups: P, codes of a token that are looked up.
        error_feedback: whether tokens take over what was lost before them.
        rotation: whether a codeword's gradient is turned into its token's, see `rotation.turned`, or passed straight
            through.
        ema_decay, restart_below, rng: see `VectorQuantiser`.

    Raises:
        ValueError: codes do not fit in 63 bits.
    """

    def __init__(
        self,
        num_codebooks,
        K_c,
        token_embedding_size,
        token_lookups,
        error_feedback,
        rotation,
        ema_decay,
        restart_below,
        rng,
    ):
        super().__init__(num_codebooks, K_c)
        self.lookups, self.error_feedback, self.rotation = token_lookups, error_feedback, rotation
        width = self.codeword_width(token_embedding_size, num_codebooks)
        self.codebooks = nn.CellList(
            [VectorQuantiser(K_c, width, ema_decay, restart_below, rng) for _ in range(num_codebooks)]
        )

    @property
    def times(self):
        return self.lookups

    @staticmethod
    def codeword_width(token_embedding_size, num_codebooks):
        """Width of the codewords of one codebook."""
        return token_embedding_size

    def _match(self, rows):
        """Vectors (R, D) -> what each codebook was asked for (R, M, d), its answers (R, M), their sum (R, D)."""
        raise NotImplementedError

    def codes_per_user(self, n_tokens):
        return n_tokens * self.lookups

    def indices(self, tokens):
        """Codewords to look up, those of a token one after the other, (B, K, D) -> (B, K * P, M) int32."""
        return nearest_codewords(tokens, self.tables(), self.lookups, self.error_feedback)

    def keys(self, tokens):
        indices = self.indices(tokens)
        return indices, np.ones(indices.shape[:2], np.float32)

    def onnx(self, graph, tokens, n_tokens):
        tables, n = self.tables(), self.n_codewords  # (M, N, D)
        words = np.concatenate(tables)  # (M * N, D)
        transposed, half_norm = graph.constant(words.T), graph.constant(0.5 * np.square(words).sum(1))
        # Of codeword and codeword; onnxruntime computes it when it opens the file, which stays small.
        gram = graph("MatMul", graph.constant(words), transposed)  # (M * N, M * N)
        products = graph("MatMul", tokens, transposed)  # (K, B, M * N)
        start = graph("Neg", half_norm)
        columns, closeness = [], start
        for place in range(n_tokens * self.lookups):
            if place % self.lookups == 0:
                product = graph("Gather", products, place // self.lookups)  # (B, M * N)
                closeness = closeness if self.error_feedback else start
            closeness, code = graph("Add", closeness, product), 0
            for book in range(len(tables)):
                part = graph("Slice", closeness, [book * n], [(book + 1) * n], [1])
                nearest = graph("ArgMax", part, axis=1)  # (B, 1)
                row = graph("Squeeze", graph("Add", nearest, book * n), [1])
                closeness = graph("Sub", closeness, graph("Gather", gram, row))
                code = graph("Add", graph("Mul", code, n), nearest)  # (B, 1)
            columns.append(code)
        codes = graph("Concat", *columns, axis=1)
        return codes, graph("ConstantOfShape", graph("Shape", codes), value=graph.tensor([1], np.float32))

    def construct(self, tokens, real=None):
        """Quantises tokens; in training the codebooks also move (after the look-up).

        Args:
            tokens: (B, K, D) float32.
            real: (B,) float32, 1, or 0 where a row is padding: it moves nothing; None: no row is.

        Returns:
            quantised (B, K, D): in value the codewords, or of several look-ups their mean, in gradient the tokens,
            turned or themselves (straight-through), and commitment, the mean squared distance between a token with what
            it was asked to hold and that, as a share of the mean square of a token; its gradient moves the token only.
        """
        real = ops.ones_like(tokens[:, 0, 0]) if real is None else real
        lookups = self.lookups if tokens.shape[1] == 1 else 1
        lost, asked, indices, codewords = self._quantise(ops.stop_gradient(tokens), lookups)
        lost = ops.stack(lost[lookups - 1 :: lookups], 1) / lookups  # (B, K, D)
        codewords = ops.stack(codewords, 1)  # (B, K * P, D)
        if lookups > 1:
            codewords = codewords.mean(1, keep_dims=True)  # (B, 1, D)
        if self.training:
            asked = ops.depend(ops.concat(asked, 0), codewords)  # (K * P * B, M, d)
            moved = self._update(asked, ops.concat(indices, 0), ops.tile(real, (len(indices),)))
            codewords = ops.depend(codewords, moved)
        codewords = ops.stop_gradient(codewords)
        straight = tokens - ops.stop_gradient(tokens)  # zero, with the gradient of tokens
        distances = ops.square(ops.stop_gradient(lost) + straight).mean((1, 2))  # (B,)
        # Encoders differ in the size of their tokens (a layer norm makes them five times those of a mean).
        sizes = ops.square(ops.stop_gradient(tokens)).mean((1, 2))
        quantised = turned(tokens, codewords) if self.rotation else codewords + straight
        return quantised, (distances * real).sum() / ops.clamp((sizes * real).sum(), min=1e-12)

    def _quantise(self, tokens, lookups):
        """Lists over K * lookups codes: what each one lost (B, D), then what `_match` says of it."""
        losses, asked, indices, codewords = [], [], [], []
        lost = nothing = ops.zeros_like(tokens[:, 0])
        for place in range(tokens.shape[1] * lookups):
            if place % lookups == 0 and not self.error_feedback:
                lost = nothing
            wanted = tokens[:, place // lookups] + lost
            targets, nearest, found = self._match(wanted)
            lost = wanted - found
            losses.append(lost)
            asked.append(targets)
            indices.append(nearest)
            codewords.append(found)
        return losses, asked, indices, codewords

    def _update(self, asked, indices, real):
        """Moves every codebook by a batch, asked (R, M, d), indices (R, M), real (R,); returns tensors to depend on."""
        return [book.update(asked[:, m], indices[:, m], real) for m, book in enumerate(self.codebooks)]


class ProductQuantiser(TokenQuantiser):
    """A token is cut in M parts, and each part has its own codebook (SparCode; Jegou et al., "Product Quantization for
    Nearest Neighbor Search", 2011).

    Arguments are those of `TokenQuantiser`.

    Raises:
        ValueError: as `TokenQuantiser`, or M does not divide D.
    """

    @staticmethod
    def codeword_width(token_embedding_size, num_codebooks):
        if token_embedding_size % num_codebooks:
            raise ValueError(f"token width {token_embedding_size} is not divisible by {num_codebooks} codebooks")
        return token_embedding_size // num_codebooks

    def _match(self, rows):
        parts = ops.split(rows, self.codebooks[0].width, 1)  # M x (R, D/M)
        nearest = [book.nearest(part) for book, part in zip(self.codebooks, parts)]
        found = [book.look_up(index) for book, index in zip(self.codebooks, nearest)]
        return ops.stack(parts, 1), ops.stack(nearest, 1), ops.concat(found, 1)

    def start(self, tokens, batch_rows, seed, judge=None):
        tokens = tokens.reshape(-1, tokens.shape[2])
        for book, part in zip(self.codebooks, np.split(tokens, self.num_codebooks, axis=1)):
            book.start(np.ascontiguousarray(part), batch_rows, seed)

    def tables(self):
        parts = np.eye(self.num_codebooks, dtype=np.float32)  # part m of a codeword of book m
        books = np.stack([book.table.asnumpy() for book in self.codebooks])  # (M, N, D/M)
        return np.einsum("mp,mnd->mnpd", parts, books).reshape(*books.shape[:2], -1)


class ResidualQuantiser(TokenQuantiser):
    """The first codebook answers the token, each later one what is still missing (Chen et al., "Approximate Nearest
    Neighbor Search by Residual Vector Quantization", 2010).

    As many codes as a product quantiser of the same M and N, spent where tokens are: a product quantiser must place
    them on a grid, and tokens do not fill a grid. Arguments are those of `TokenQuantiser`; a codeword is as wide as a
    token.
    """

    def _match(self, rows):
        asked, nearest, found = [], [], ops.zeros_like(rows)
        for book in self.codebooks:
            missing = rows - found
            index = book.nearest(missing)
            found = found + book.look_up(index)
            asked.append(missing)
            nearest.append(index)
        return ops.stack(asked, 1), ops.stack(nearest, 1), found

    def start(self, tokens, batch_rows, seed, judge=None):
        tokens = tokens.reshape(-1, tokens.shape[2])
        for book in self.codebooks:
            tokens = tokens - book.start(tokens, batch_rows, seed)

    def tables(self):
        return np.stack([book.table.asnumpy() for book in self.codebooks])
