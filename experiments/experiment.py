"""What a table or picture is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Flags = Mapping[str, object]  # of work.py, without the dashes

COLUMNS = {  # metrics of the table, by split
    "user": ("recall@50", "ndcg@50", "precision@50"),
    "leave-one-out": ("hit@10", "ndcg@10", "recall@50"),
    "last-3": ("recall@20", "precision@20", "map@20", "ndcg@20"),
}


@dataclass(frozen=True)
class Experiment:
    """Configurations to train and to compare; a specification.

    Attributes:
        question: what the table answers, its heading.
        rows: by label, the flags in which a configuration departs from the defaults. Flags about index and evaluation
            take no training of their own: the run without them is evaluated anew.
        controls: by label, the labels of the configurations that it is tested against, user by user.
        facts: further columns: "seconds", "epochs", or a key of the run's index.json such as "bytes".
        x: of the picture: a flag or one of `facts`, one line per series, which is the label up to its first comma; None
            draws one mark per row.
        paths: by label, which answers of the run are shown, as it names them: "exhaustive", "deep alone", "wide alone";
            those through the index where nothing is said and there is one.
        published: by label, what the literature reports, as text.
        source: where it reports that: publication, data and protocol.
        beside: how the names of the data sets begin beside which that is shown.
        flags: of all rows, such as the protocol of the table.
    """

    question: str
    rows: Mapping[str, Flags]
    controls: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    x: str | None = None
    paths: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    beside: str = "ml-"
    flags: Flags = field(default_factory=dict)

    def __post_init__(self):
        named = {
            *self.controls,
            *self.published,
            *self.paths,
            *(label for labels in self.controls.values() for label in labels),
        }
        if unknown := named - set(self.rows):
            raise ValueError(f"{self.question} has no row {', '.join(sorted(unknown))}; name one of its rows.")
        if self.source == "" and self.published:
            raise ValueError(f"{self.question} shows published numbers; say in source where they are from.")
