"""The benchmarks of this package run, and say what they lack."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(script, *arguments, prelude=""):
    program = (
        f"import runpy, sys; {prelude}sys.argv = {[script, *arguments]!r}; "
        f"runpy.run_path({str(ROOT / 'benchmarks' / script)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_the_dry_run_stays_within_its_memory():
    done = run("million_items.py", "--items", "3000", "--codes", "16", "--postings", "50",
               "--queries", "20")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3,000 items, 16 codes" in done.stdout and "postings            800" in done.stdout


def test_a_missing_faiss_is_told_with_the_command_that_installs_it():
    done = run("search_engines.py", "--items", "100", prelude="sys.modules['faiss'] = None; ")
    assert done.returncode == 1 and "pip install faiss-cpu" in done.stderr


def test_the_comparison_runs_with_faiss(tmp_path):
    done = run("search_engines.py", "--items", "300", "--codes", "20", "--postings", "30",
               "--batch", "8", "--seconds", "0.01", "--rounds", "1", "--k", "5", "--threads", "1",
               "--json", str(tmp_path / "out.json"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "index float32 / faiss Flat" in done.stdout and (tmp_path / "out.json").exists()


def test_the_package_needs_numpy_and_numba_only():
    program = """
import sys
others = ("mindspore", "pandas", "scipy", "sklearn", "torch", "faiss", "tqdm", "threadpoolctl")
sys.modules.update(dict.fromkeys(others))  # importing one of them is an ImportError now
import numpy as np
from retrieval import PairScorer, build_index
eye = np.eye(4, dtype=np.float32)
scorer = PairScorer(codewords=eye[None], token_dot=(eye, 0 * eye[0]), item_dot=eye, score_bias=0.0)
index = build_index(scorer, range(4), 4, relu=True)
print(index.compact("uint8").recommend([[2, 2]], 1)[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[[3]]", done.stdout + done.stderr
