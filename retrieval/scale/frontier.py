"""What shorter lists save, and what they cost: one row per setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from retrieval.index import SparseInvertedIndex


def frontier(index: SparseInvertedIndex, settings: Iterable[dict], evaluate: Callable) -> list[dict]:
    """The index under each of some settings, and what it is worth there; nothing is scored again.

    Args:
        index: an exact index.
        settings: limits of SparseInvertedIndex.prune, with the posting format to store the result in, if it is to be
            another, as `format`; {} is the index as it is.
        evaluate: takes the index, exact or compact, and returns its value: recall on the validation queries, say.

    Returns:
        One row per setting, in their order: setting, format, postings, postings_per_code, sparsity, bytes, value.

    Raises:
        ValueError: a limit can't be met.
    """
    rows = []
    for setting in settings:
        cut = index.prune(**setting) if setting.keys() - {"format"} else index
        format = setting.get("format", index.format)
        cut = cut if format == index.format else cut.compact(format)
        sizes = cut.statistics()
        rows.append(
            {
                "setting": dict(setting),
                "format": format,
                "postings": sizes["postings"],
                "postings_per_code": sizes["postings"] / max(1, sizes["codes"]),
                "sparsity": sizes["sparsity"],
                "bytes": sizes["bytes"],
                "value": evaluate(cut),
            }
        )
    return rows
