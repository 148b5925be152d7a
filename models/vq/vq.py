"""One codebook: nearest codeword, EMA update, k-means start and restart of dead codewords."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from models.vq.means import fit_means


class VectorQuantiser(nn.Cell):
    """N codewords of width d that follow the vectors assigned to them.

    The codebook has no gradient: codeword n is the ratio of two exponential moving averages, the sum of the vectors
    assigned to n and their number (van den Oord et al., "Neural Discrete Representation Learning", appendix A.1).
    The table that `update` moves is the one that `nearest` and `look_up` read.

    Args:
        codewords: N, the number of codewords.
        width: d, the size of one codeword.
        decay: share of the old average that is kept in each update.
        restart_below: a codeword whose average number of vectors per batch falls below this share of its fair number
            (vectors / codewords) is dead and is put on a vector of the current batch.
        rng: NumPy generator for the start of the table and the choice of restart vectors.
    """

    def __init__(self, codewords, width, decay, restart_below, rng):
        super().__init__()
        self.n_codewords, self.width = codewords, width
        self.decay, self.restart_below = decay, restart_below
        table = rng.normal(0, 1 / np.sqrt(width), (codewords, width)).astype(np.float32)
        self.table = ms.Parameter(ms.Tensor(table), name="table", requires_grad=False)  # (N, d)
        self.ema_sum = ms.Parameter(ms.Tensor(table.copy()), name="ema_sum", requires_grad=False)  # (N, d)
        self.ema_count = ms.Parameter(ms.Tensor(np.ones(codewords, np.float32)), name="ema_count", requires_grad=False)
        # Batches are shuffled, so fixed places in the batch hold random vectors.
        self.restart_places = ms.Tensor(rng.permutation(codewords) / codewords, ms.float32)  # (N,)

    def nearest(self, vectors):
        """Index of the codeword with the least squared distance, (R, d) float32 -> (R,) int32."""
        # |x - c|^2 = |x|^2 - 2 x.c + |c|^2, and |x|^2 is the same for every codeword.
        products = ops.MatMul(transpose_b=True)(vectors, self.table)  # (R, N)
        closeness = ops.bias_add(products, -0.5 * ops.square(self.table).sum(1))  # faster than a broadcasting sum
        return ops.Argmax(axis=1, output_type=ms.int32)(closeness)

    def look_up(self, indices):
        """Codewords of the given indices, (R,) int32 -> (R, d) float32."""
        return ops.gather(self.table, indices, 0)

    def update(self, vectors, indices, real):
        """Moves the averages and the table by one batch and restarts dead codewords; returns a tensor to depend on.

        Args:
            vectors: (R, d) float32, without gradient.
            indices: (R,) int32, the codeword each vector was assigned to.
            real: (R,) float32, 1 where a vector counts, 0 where it is padding.
        """
        counted = ops.unsorted_segment_sum(real, indices, self.n_codewords)  # (N,)
        summed = ops.unsorted_segment_sum(vectors * real.expand_dims(1), indices, self.n_codewords)  # (N, d)
        count = self.decay * self.ema_count + (1 - self.decay) * counted
        total = self.decay * self.ema_sum + (1 - self.decay) * summed
        number = real.sum()
        fair = number / self.n_codewords
        alive = (count >= self.restart_below * fair).astype(ms.float32)  # (N,)
        rows = ops.arange(vectors.shape[0]).astype(ms.float32) / vectors.shape[0]
        _, real_first = ops.Sort(descending=True)(2 * real - rows)
        places = (self.restart_places * number).astype(ms.int32)
        fresh = ops.gather(vectors, ops.gather(real_first, places, 0), 0)  # (N, d)
        count = alive * count + (1 - alive) * fair
        alive = alive.expand_dims(1)
        total = alive * total + (1 - alive) * fair * fresh
        # Without restarts the averages of an unused codeword fade to nothing, and their ratio to NaN: it stays put.
        count_column = count.expand_dims(1)
        table = ops.where(count_column > 1e-8, total / ops.clamp(count_column, min=1e-8), self.table)
        return (ops.assign(self.ema_count, count), ops.assign(self.ema_sum, total), ops.assign(self.table, table))

    def start(self, vectors, batch_rows, seed):
        """Puts the codewords on the k-means centres of some vectors (outside the graph).

        Args:
            vectors: (R, d) float32 array, R >= N.
            batch_rows: vectors per training batch, the scale of the moving counts.
            seed: of scikit-learn's k-means.

        Returns:
            (R, d) float32 array, the codeword of each vector.

        Raises:
            ValueError: fewer vectors than codewords.
        """
        if len(vectors) < self.n_codewords:
            raise ValueError(f"k-means needs at least {self.n_codewords} vectors, got {len(vectors)}")
        means = fit_means(vectors, self.n_codewords, seed)
        share = np.bincount(means.labels_, minlength=self.n_codewords) / len(vectors)
        count = np.maximum(share * batch_rows, 1.0).astype(np.float32)
        centres = means.cluster_centers_
        self.table.set_data(ms.Tensor(centres))
        self.ema_count.set_data(ms.Tensor(count))
        self.ema_sum.set_data(ms.Tensor(centres * count[:, None]))
        return centres[means.labels_]
