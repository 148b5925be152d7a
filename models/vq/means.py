"""Where codewords start."""

from __future__ import annotations

import warnings

import numpy as np


def fit_means(vectors: np.ndarray, number: int, seed: int):
    """scikit-learn's k-means of float32 vectors (R, D), R >= number, fitted: `cluster_centers_`, `labels_`.

    Its start in float32 turns all vectors into float64 again for every centre, which takes three times as long as the
    rest; so it gets a start that was computed in float64.
    """
    from sklearn.cluster import KMeans, kmeans_plusplus  # here, as it takes two seconds to import
    from sklearn.exceptions import ConvergenceWarning

    start, _ = kmeans_plusplus(vectors.astype(np.float64), number, random_state=seed)
    means = KMeans(number, init=start.astype(np.float32), n_init=1, max_iter=25, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of many users alike: fewer different vectors than centres
        return means.fit(vectors)
