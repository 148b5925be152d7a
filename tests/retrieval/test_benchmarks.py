"""The benchmarks of this package run, and say what they lack."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faiss_search import FaissSearch, smallest_ef
from benchmarks.growth import exponent
from benchmarks.measuring import Asked, Engine, compete
from benchmarks.search_engines import tell
from data.ragged import Ragged
from retrieval.interactions import INTERACTIONS

ROOT = Path(__file__).resolve().parents[2]


def run(script, *arguments, prelude=""):
    program = (
        f"import runpy, sys; {prelude}sys.argv = {[script, *arguments]!r}; "
        f"runpy.run_path({str(ROOT / 'benchmarks' / script)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_the_dry_run_stays_within_its_memory():
    done = run("million_items.py", "--items", "3000", "--codes", "16", "--postings", "50", "--queries", "20")
    assert done.returncode == 0, done.stderr
    assert "3,000 items, 16 codes" in done.stdout and "postings            800" in done.stdout


def test_built_pairs_of_every_interaction_are_counted():
    done = run("built_pairs.py", "--items", "300", "--codes", "4", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip("| ").removesuffix(" + dot") for row in rows] == list(INTERACTIONS)
    assert all(int(row[1].replace(",", "")) > 0 for row in rows) and rows[0][2].startswith("1.0")


def test_a_missing_faiss_is_told_with_the_command_that_installs_it():
    done = run("search_engines.py", "--items", "100", prelude="sys.modules['faiss'] = None; ")
    assert done.returncode == 1 and "pip install faiss-cpu" in done.stderr


def test_the_comparison_runs_with_faiss(tmp_path):
    done = run(
        "search_engines.py",
        "--items",
        "300",
        "--codes",
        "20",
        "--postings",
        "30",
        "--batch",
        "8",
        "--seconds",
        "0.01",
        "--rounds",
        "1",
        "--k",
        "5",
        "--threads",
        "1",
        "--json",
        str(tmp_path / "out.json"),
    )
    assert done.returncode == 0, done.stderr
    assert "index float32 / faiss Flat" in done.stdout and (tmp_path / "out.json").exists()


@pytest.mark.parametrize("ef", [None, 400])  # 400 of 400 items: HNSW walks the whole graph
def test_faiss_leaves_out_what_was_seen_and_nothing_else(ef, rng):
    """Against all inner products; one user has seen all items but three, one has seen nothing."""
    items = rng.standard_normal((400, 16), np.float32)
    users = rng.standard_normal((30, 16), np.float32)
    seen = [rng.choice(400, size, replace=False) + 1 for size in (0, 397, *rng.integers(1, 80, 28))]
    answer = FaissSearch(items, 200).searcher(10, ef)
    asked = Asked(users, seen=Ragged.from_rows(seen))
    ids, scores = answer(asked, 1)
    products = users @ items.T
    for user, some in enumerate(seen):
        products[user, some - 1] = -np.inf
        best = np.argsort(-products[user])[: min(10, 400 - len(some))]
        np.testing.assert_array_equal(ids[user][: len(best)], best + 1)
        np.testing.assert_allclose(scores[user][: len(best)], products[user][best], rtol=1e-5)
        assert (ids[user][len(best) :] == 0).all() and np.isneginf(scores[user][len(best) :]).all()
    for user, one in enumerate(asked.singles):  # one by one the same
        np.testing.assert_array_equal(answer(one, 1)[0][0], ids[user])
    np.testing.assert_array_equal(answer(Asked(users), 1)[0][0], ids[0])  # of who has seen nothing


def test_the_smallest_ef_is_found_to_an_eighth():
    for needed in (50, 51, 300, 7000):
        ef, found = smallest_ef(lambda ef, needed=needed: float(ef >= needed), 50, 0.95)
        assert needed <= ef <= max(needed * 9 / 8 + 1, 50) and found == 1
    assert smallest_ef(lambda ef: 0.9, 50, 0.95) == (None, 0.9)


def test_a_rate_counts_queries_and_latency_one_of_them():
    asked = Asked(np.zeros((20, 4), np.int64))
    sizes = []

    def answer(some, threads):
        sizes.append(len(some))
        time.sleep(0.002)

    engine = Engine("slow", answer, asked)
    compete([engine], [1, 2], 0.05, 1)
    assert set(sizes) == {1, 20}
    assert 20 / 0.002 >= engine.rates["batch 1"] > 5 * engine.rates["single 1"]
    assert 1 / 0.002 >= engine.rates["single 1"] > 20
    assert engine.rates["single 2"] > 1.3 * engine.rates["single 1"]  # two callers sleep at once
    assert 2 <= engine.p50_ms <= engine.p99_ms


def test_the_verdict_compares_the_best_of_ours(capsys):
    ours = [Engine(name, None, None, rates={"batch 1": rate}) for name, rate in (("a", 20), ("b", 50))]
    other = Engine("other", None, None, rates={"batch 1": 20})
    tell(ours, other, ["batch 1"], 3.0, "x")
    tell(ours, other, ["batch 1"], 2.5, "x")
    tell([], other, ["batch 1"], 1.0, "x")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("batch 1: b") and "2.50x" in said[0] and said[0].endswith("missed")
    assert said[1].endswith("met") and said[2].endswith("missed")


def test_growth_finds_known_exponents_and_prints_real_ones():
    sizes = np.array([10, 100, 1000])
    assert exponent(sizes, 3 * sizes) == pytest.approx(1)
    assert exponent(sizes, sizes**-0.5) == pytest.approx(-0.5)
    done = run(
        "growth.py",
        "--items",
        "2000",
        "500",
        "--codes",
        "16",
        "--postings",
        "20",
        "--queries",
        "8",
        "--seconds",
        "0.01",
    )
    assert done.returncode == 0, done.stderr
    table = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert table["500"][2] == table["2,000"][2] == "20"  # postings per code: the cap, at every size
    assert float(table["slope"][2]) == float(table["slope"][1]) == 0  # so the index does not grow
    refused = run("growth.py", "--items", "300", "500", "--postings", "20")
    assert refused.returncode == 2 and "20 times --postings" in refused.stderr


def test_the_package_needs_numpy_and_numba_only():
    program = """
import sys
others = ("mindspore", "pandas", "scipy", "sklearn", "torch", "faiss", "tqdm", "threadpoolctl")
sys.modules.update(dict.fromkeys(others))  # importing one of them is an ImportError now
import numpy as np
from retrieval import CodeScorer, build_index
eye = np.eye(4, dtype=np.float32)
sizes = {"embedding_size": len(eye), "token_embedding_size": len(eye)}
scorer = CodeScorer("dot", sizes, {}, eye, codewords=eye[None], score_bias=0.0)
index = build_index(scorer, range(4), 4, relu=True)
print(index.compact("uint8").recommend([[2, 2]], 1)[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[[3]]", done.stdout + done.stderr
