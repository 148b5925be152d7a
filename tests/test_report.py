"""What a run says of its data, its codebooks and its results."""

import csv
import re

import numpy as np
import pytest

import report
from metric import NAMES, Metrics
from models.vq import ProductQuantiser
from runs import saved_metrics
from work import main


def test_codebook_health_of_known_codes():
    quantiser = ProductQuantiser(2, 4, 6, 1, False, False, 0.9, 0.0, np.random.default_rng(0))
    codes = quantiser.encode(np.array([[[0, 3], [1, 3]], [[2, 3], [3, 3]]]))
    health = report.codebook_health(quantiser, codes)
    assert health["tuples"] == 4
    assert [book["used"] for book in health["codebooks"]] == [4, 1]
    assert [book["perplexity"] for book in health["codebooks"]] == pytest.approx([4, 1])


def test_numbers_of_queries_are_saved_with_the_metrics(tmp_path):
    values = {name: np.array([[0.5], [1.5]]) for name in NAMES}
    for queries in (None, np.array([1, 3])):
        report._save_per_user(tmp_path / "per_user_exhaustive.npz", Metrics((5,), values, queries))
        again = saved_metrics(tmp_path)
        assert again.topk == (5,) and again.values.keys() == values.keys()
        np.testing.assert_array_equal(again.queries, queries)


def test_an_index_that_few_users_leave_whole_says_why(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("workflow.SURE_USERS", 201)  # the sample has 200
    small = ["--dataset", "sample", "--encoder", "DNN", "--epoch", "1", "--K_c", "16", "--wide", "0", "--name"]
    said = "stay whole, in float32; --index_format uint8"
    assert main([*small, "open"]) == 0 and said in capsys.readouterr().out
    assert main([*small, "small", "--index_format", "uint8", "--max_postings", "50"]) == 0
    assert said not in capsys.readouterr().out


def test_an_index_whose_lists_are_too_short_for_the_catalogue_says_what_they_lose(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("matcher.POSTINGS", 16 * 30)
    small = ["--dataset", "sample", "--encoder", "DNN", "--epoch", "1", "--K_c", "16", "--wide", "0", "--name"]
    said = r"lists of 30 of 1,\d+ items, the longest that are built unasked, change recall@50 of validation users by -0"
    assert main([*small, "open"]) == 0 and re.search(said, capsys.readouterr().out)
    assert main(["--mode", "test", "--checkpoint", "runs/open/best.ckpt", "--max_postings", "30"]) == 0
    assert "longest that are built" not in capsys.readouterr().out


def test_a_result_below_popularity_is_said_with_both_numbers(capsys):
    def measured(recall):
        return Metrics((5,), {"recall": np.array([[recall], [recall]]), "ndcg": np.array([[0.3], [0.3]])})

    report.below_popularity(measured(0.3), measured(0.3))
    assert capsys.readouterr().out == ""
    report.below_popularity(measured(0.0), measured(0.17))
    said = capsys.readouterr().out
    assert said.startswith(
        "WARNING: worse than recommending the most popular items to everyone: recall@5 0.0000 < 0.17"
    )
    assert said.count("\n") == 1 and "ndcg" not in said


def test_rows_that_the_preparation_left_out_are_said_and_a_baseline_has_no_encoder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"u{user},i{(user + step) % 9},{step}\n" for user in range(20) for step in range(8)]
    rows += ["u0,i0,99\n", "u1,i1,99\n", "u2,rare,99\n"]
    (tmp_path / "few.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    flags = "--model GlobalHot --dataset few --source few.csv --topk 1,5"
    assert main(flags.split()) == 0
    said = capsys.readouterr().out
    assert (
        "left out: 2 interactions of users with an item that they had already, 1 items with fewer than 5, "
        "1 interactions of these" in said
    )
    assert "\nGlobalHot on few" in said
    with open(tmp_path / "runs" / "GlobalHot-few" / "metrics.csv", newline="") as file:
        assert {row["encoder"] for row in csv.DictReader(file)} == {""}


def test_how_the_files_were_understood_is_said_where_it_may_be_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [f"{user},{item},{item},buy,{20 - item}\n" for user in ["NA", *range(20)] for item in range(8)]
    (tmp_path / "few.csv").write_text("userId,item_id,date,event,price\n" + "".join(rows))
    (tmp_path / "movies.csv").write_text("movieId,title\n3,Heat\n4,Babe\n99,Up\n")
    told = "--model GlobalHot --dataset few --source few.csv --topk 1,5 --name"
    assert main([*told.split(), "told"]) == 0
    said = capsys.readouterr().out
    for line in (
        "  columns: userId as user_id, item_id, date as timestamp; not read: event, price\n",
        "  titles of 2 of 8 items, from movies.csv\n",
        "  NOTE: 5% of the interactions have the id 'NA'; leave them out",
        "  NOTE: in 100% of the histories items stand by their ids; if that is no order of time",
    ):
        assert line in said
    rows = [f"{user},{(user + step) % 9},{step}\n" for user in range(1, 20) for step in range(8)]
    (tmp_path / "few.csv").write_text("user_id,item_id,timestamp\n" + "".join(rows))
    (tmp_path / "movies.csv").unlink()
    assert main([*told.split(), "silent"]) == 0
    said = capsys.readouterr().out
    assert "NOTE" not in said and "columns:" not in said and "titles of" not in said
