"""Features of users and items through `work.py`: from users.dat and movies.dat to what serves without MindSpore."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval.served import open_served
from work import main, parse

ROOT = Path(__file__).resolve().parents[1]
SMALL = """--dataset tiny --epoch 2 --pretrain_epoch 1 --hidden 8 --interaction_hidden 4 --embedding_size 8 --K_c 8
    --encoder DNN --token_embedding_size 8 --positions_per_user 5 --neg_num 16 --batch_size 32 --inference_batch_size 64
    --topk 5 --monitor recall@5 --index_loss none --name tiny""".split()  # noqa: SIM905
FEATURES = ["--user_features", "gender,age", "--item_features", "categories,year"]


@pytest.fixture
def source(tmp_path, monkeypatch):
    """60 users and 30 films as MovieLens writes them, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARCODE_DATA", raising=False)
    rng, folder = np.random.default_rng(7), tmp_path / "given"
    folder.mkdir()
    taken = [(user, item) for user in range(1, 61) for item in rng.permutation(30)[:12] + 1]
    ratings = [f"{user}::{item}::{rng.integers(1, 6)}::{10**9 + place}" for place, (user, item) in enumerate(taken)]
    (folder / "ratings.dat").write_text("\n".join(ratings) + "\n")
    films = [f"{i}::Film {i} ({1990 + i % 5})::{'Drama|War' if i % 3 else 'Comedy'}" for i in range(1, 31)]
    (folder / "movies.dat").write_text("\n".join(films) + "\n")
    people = [f"{u}::{'FM'[u % 2]}::{(18, 25, 35)[u % 3]}::{u % 7}::48067" for u in range(1, 61)]
    (folder / "users.dat").write_text("\n".join(people) + "\n")
    return folder


def served(*arguments):
    program = [sys.executable, str(ROOT / "examples" / "serve.py"), "runs/tiny", *arguments]
    return subprocess.run(program, capture_output=True, text=True)


def test_from_the_files_of_movielens_to_serving(source, capsys):
    assert main([*SMALL, *FEATURES, "--source", str(source)]) == 0
    best = "runs/tiny/best.ckpt"
    again = ["--checkpoint", best, "--source", str(source)]
    assert main(["--mode", "test", *again]) == 0
    assert Path("runs/tiny/metrics.csv").read_text() == Path("runs/tiny-test/metrics.csv").read_text()
    assert main(["--mode", "export", *again, "--max_postings", "3"]) == 2
    assert "--max_postings changes nothing in an index that stands" in capsys.readouterr().err
    assert main(["--mode", "export", *again]) == 0 and "--user gender=" in capsys.readouterr().out
    assert main(["--mode", "recommend", *again, "--history", "1|2"]) == 0 and " 10. " in capsys.readouterr().out

    from runs import Run

    run = Run("runs/tiny", str(source))
    assert run.model.users.names[1:] == ["gender=F", "gender=M", "age=18", "age=25", "age=35"]
    assert {"categories=Comedy", "year=1990"} < set(run.data.features.item.names)
    queries = run.data.test
    found, expected = (each.recommend(queries, 10) for each in (run.recommender(), run.exhaustive()))
    np.testing.assert_allclose(found[1], expected[1], atol=1e-4)
    np.testing.assert_allclose(open_served("runs/tiny").recommend(queries, 10)[1], found[1], atol=1e-4)

    history = [str(item) for item in queries.histories[0]]
    user = [run.model.users.names[value] for value in queries.users[0]]
    lines = served(*history, "--user", *user).stdout.splitlines()
    assert [int(line.split()[0]) for line in lines] == found[0][0].tolist()
    for flags, part in ([], "say what is known of each"), (["--user", "gender=X"], "'gender=X' is nothing"):
        done = served(*history, *flags)
        assert done.returncode == 1 and part in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--user_features", "gender,shoe"], "has no 'shoe'; choose from 'gender, age, occupation'"),
        (["--item_features", "colour"], "--item_features is 'colour'; it must be some of categories, year"),
        (["--user_file", "nowhere.csv", "--user_features", "shoe"], "nowhere.csv"),
    ],
)
def test_features_that_nobody_knows_are_one_sentence(flags, part, source, capsys):
    assert main([*SMALL, "--source", str(source), *flags]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and part in said and "\n" not in said


def test_a_file_of_users_goes_before_the_one_beside_the_source(source, capsys):
    Path("mine.csv").write_text("user_id,club\n" + "".join(f"{user},chess|go\n" for user in range(1, 61)))
    assert main([*SMALL, "--source", str(source), "--user_file", "mine.csv", "--user_features", "gender"]) == 2
    assert "choose from 'club'" in capsys.readouterr().err


def test_lists_of_names_are_read():
    h = parse([*FEATURES, "--topk", "5,10"])[0]
    assert (h.user_features, h.item_features, h.topk) == (("gender", "age"), ("categories", "year"), (5, 10))
    assert parse(["--user_features", "none"])[0].user_features == parse([])[0].user_features == ()
