"""What shorter lists save, and what they cost: one row per setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from retrieval.index import SparseInvertedIndex


def frontier(index: SparseInvertedIndex | Callable, settings: Iterable[dict], evaluate: Callable) -> list[dict]:
    """The index under each of the settings, and evaluate(it): one row per setting, in their order.

    A setting holds limits of SparseInvertedIndex.prune and may name a compact format to store the
    result in, which is then also what max_bytes counts; {} is the index as it is. Nothing is scored
    again. Where a setting needs another build (another score_bias, say), `index` is a function
    from the setting to an index instead. evaluate gets the index, exact or compact, and returns a
    number or a dict of them: recall on the validation queries, an overlap, a time.

    A row holds: setting, format, postings, postings_per_code, sparsity, bytes, value.
    """
    rows = []
    for setting in settings:
        cut = index(setting) if callable(index) else _cut(index, setting)
        sizes = cut.statistics()
        rows.append(
            {
                "setting": dict(setting),
                "format": sizes["format"],
                "postings": sizes["postings"],
                "postings_per_code": sizes["postings"] / max(1, sizes["codes"]),
                "sparsity": sizes["sparsity"],
                "bytes": sizes["bytes"],
                "value": evaluate(cut),
            }
        )
    return rows


def frontier_table(rows: list[dict]) -> str:
    """The rows of `frontier` as text, in columns."""
    table = [["setting", "postings", "per code", "sparsity", "MB", *_values(rows[0]["value"])]]
    for row in rows:
        named = (f"{name}={value}" for name, value in row["setting"].items())
        table.append(
            [
                " ".join(named) or "as it is",
                f"{row['postings']:,}",
                f"{row['postings_per_code']:.1f}",
                f"{row['sparsity']:.2%}",
                f"{row['bytes'] / 1e6:.2f}",
                *(f"{value:.4f}" for value in _values(row["value"]).values()),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in table
    )


def _cut(index: SparseInvertedIndex, setting: dict):
    limits = dict(setting)
    format = limits.pop("format", "float32")
    cut = index.prune(**limits, format=format) if limits else index
    return cut if format == "float32" else cut.compact(format)


def _values(value) -> dict:
    return value if isinstance(value, dict) else {"value": value}
