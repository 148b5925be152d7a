"""Codewords of tokens outside the graph: every look-up from one product of tokens and codewords."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from retrieval.search import available_cores

BLOCK = 2**22  # products of tokens and codewords at once, 16 MiB
GRAM = 2**27  # products of codewords and codewords that are kept, 512 MiB
ROW = 4  # times its share of them all is what a row of them takes on its own


def nearest_codewords(tokens: np.ndarray, tables: np.ndarray, lookups: int, error_feedback: bool) -> np.ndarray:
    """The codewords that each token looks up; see `TokenQuantiser`.

    Each book answers what the answers before it left over, of this token and, with feedback, of those before. What is
    left over is a token less some codewords, so its closeness to every codeword is a sum of products that are known:
    token with codeword, computed once per token, and codeword with codeword, computed once where there are many tokens
    (as in the batch form of orthogonal matching pursuit: Rubinstein et al., 2008).

    Args:
        tokens: (B, K, D) float32.
        tables: (M, N, D) float32 codebooks of full width; a token is the sum of a codeword of each.
        lookups: P, of a token.
        error_feedback: whether tokens take over what was lost before them.

    Returns:
        (B, K * P, M) int32.
    """
    n_users, n_tokens, width = tokens.shape
    n_books, n_codewords, _ = tables.shape
    words = np.ascontiguousarray(tables.reshape(-1, width))  # (M * N, D)
    gram = gram_of(words, n_users * n_tokens * lookups * n_books)
    half_norm = np.float32(0.5) * np.square(words).sum(1)  # |x - c|^2 is least where x.c - |c|^2 / 2 is greatest
    indices = np.empty((n_users, n_tokens * lookups, n_books), np.int32)
    size = max(BLOCK // (n_tokens * len(words)), 1)

    def fill(first: int) -> None:
        users = slice(first, first + size)
        products = tokens[users].reshape(-1, width) @ words.T
        products = products.reshape(-1, n_tokens, len(words))
        _pursue_nearest(products, words, gram, half_norm, n_codewords, lookups, error_feedback, indices[users])

    with ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(fill, range(0, n_users, size)))
    return indices


def gram_of(words: np.ndarray, uses: int) -> np.ndarray:
    """The products of codewords (N, D) and codewords, (N, N) float32, of which so many rows will be used; nothing,
    (0, 0), where they are too many to keep, or rows as they come are fewer to compute: for one query all of them took
    ten times as long as the rest."""
    pays = ROW * uses >= len(words) and len(words) ** 2 <= GRAM
    return words @ words.T if pays else np.empty((0, 0), np.float32)


@numba.njit(nogil=True, cache=True)
def _pursue_nearest(products, words, gram, half_norm, n_codewords, lookups, error_feedback, indices):
    """Fills indices (B, K * P, M) from products (B, K, M * N)."""
    n_books = indices.shape[2]
    closeness = np.empty(len(words), np.float32)
    for user in range(len(products)):
        closeness[:] = -half_norm
        for token in range(products.shape[1]):
            if not error_feedback:
                closeness[:] = -half_norm
            for place in range(token * lookups, (token + 1) * lookups):
                closeness += products[user, token]
                for book in range(n_books):
                    first = book * n_codewords
                    word = first + greatest(closeness[first : first + n_codewords])
                    indices[user, place, book] = word - first
                    if len(gram):
                        closeness -= gram[word]
                    else:
                        for other in range(len(words)):
                            closeness[other] -= _inner(words[other], words[word])


@numba.njit(nogil=True, fastmath=True)
def greatest(values):
    """The first place of the greatest of finite values (N,); a maximum without its place is several times faster to
    find."""
    most = values[0]
    for value in values:
        most = max(most, value)
    for place in range(len(values)):
        if values[place] == most:
            return place
    return 0


@numba.njit(nogil=True, fastmath=True)
def _inner(left, right):
    total = np.float32(0)
    for column in range(len(left)):
        total += left[column] * right[column]
    return total
