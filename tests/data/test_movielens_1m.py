"""On the real ML-1M, where SPARCODE_DATA names a folder that holds it."""

from data.prepare import prepare
from load_csv_dataset import load_catalogue, load_training


def test_real_ml_1m(tmp_path, shared_ml_1m):
    prepared = prepare("ml-1m", shared_ml_1m, tmp_path)
    assert prepared.label == "MovieLens-1M, file interactions.csv.gz"
    statistics = prepared.description["statistics"]
    assert (statistics["users"], statistics["items"]) == (6040, 3416)
    assert statistics["interactions"] == 999_611
    parts = [statistics[f"{part}_users"] for part in ("train", "valid", "test")]
    assert parts == [4832, 604, 604]

    assert prepare("ml-1m", shared_ml_1m, tmp_path) == prepared

    catalogue = load_catalogue(prepared.folder)
    at = catalogue.original_ids.index("73")
    assert catalogue.titles[at].startswith("Mis\u00e9rables, Les")
    training = load_training(prepared.folder / "data.csv", catalogue.n_items)
    assert int(training.sequences.lengths().sum()) > 750_000
