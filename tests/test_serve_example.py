"""examples/serve.py recommends what the model does, in a process that cannot import MindSpore."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
HISTORY = [7, 3, 12, 3, 40, 1, 9, 22]


def serve(*arguments, blocked=("mindspore", "models", "pandas", "sklearn", "scipy", "onnx")):
    """The finished example; importing a blocked module is an ImportError in it."""
    program = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({blocked!r})); sys.argv = {['serve.py', *arguments]!r}; "
        f"runpy.run_path({str(ROOT / 'examples' / 'serve.py')!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd="/")


@pytest.fixture
def run_folder(make_model, eager_mode, tmp_path):
    """make(keep=None) -> folder with query.onnx, scorer.npz and an index of all codes or of the first of the history;
    and what is expected."""
    import models
    from data.queries import Queries
    from data.ragged import Ragged
    from models.onnx_export import export_query_side
    from retrieval import build_index, save_scorer
    from retrieval.served import INDEX, QUERY, SCORER, write_manifest

    model, queries = make_model("DQMatch"), Queries.without_targets(Ragged.from_rows([HISTORY]))
    side = models.QuerySide(model, 64)
    rows = np.random.default_rng(0).integers(1, 41, (60, 6))
    model.start_quantiser(side.raw_tokens(Queries.without_targets(Ragged.from_rows(rows))), 32, 0)
    export_query_side(model, tmp_path / "query.onnx")
    save_scorer(model.scorer(), tmp_path / "scorer.npz")
    codes = side.codes(queries)

    def make(keep=None):
        kept = np.arange(16**2) if keep is None else codes[0, :keep]
        build_index(model.scorer(), np.unique(kept), 40, relu=False, progress=False).save(tmp_path / "index")
        write_manifest(tmp_path, [INDEX, QUERY, SCORER])
        whole = build_index(model.scorer(), np.unique(codes), 40, relu=False, progress=False)
        return whole.recommend(codes, 10, seen=queries.histories)

    return tmp_path, make


def printed(done):
    assert done.returncode == 0, done.stderr
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    return [int(row[0]) for row in rows], [float(row[1]) for row in rows], [row[2] for row in rows if len(row) > 2]


@pytest.mark.parametrize("keep", [None, 2])
def test_the_example_recommends_what_the_model_does_without_mindspore(keep, run_folder):
    """With an index of all codes, and with one that lacks a code of the history."""
    folder, make = run_folder
    items, scores = make(keep)
    titles = folder / "items.csv"
    titles.write_text("id,original_id,title,categories\n" + "".join(f'{i},x{i},"Film, {i}",\n' for i in range(1, 41)))
    done = serve(str(folder), *map(str, HISTORY), "--items", str(titles))
    found, found_scores, found_titles = printed(done)
    assert found == items[0].tolist() and not set(found) & set(HISTORY)
    np.testing.assert_allclose(found_scores, scores[0], atol=1e-4)
    assert found_titles == [f"Film, {item}" for item in found]
    assert printed(serve(str(folder), *map(str, HISTORY)))[0] == found


def test_what_can_be_mended_is_one_sentence(run_folder):
    folder, make = run_folder
    make()
    (folder / "other.csv").write_text("title\nx\n")
    for arguments, part in [
        (["nowhere", "1"], "there is no nowhere/manifest.json"),
        ([str(folder), "3", "99"], "Item 99 is outside the items 1..40"),
        ([str(folder), "3", "0"], "Item 0 is outside"),
        ([str(folder), "3", "--items", str(folder / "other.csv")], "other.csv cannot be read (KeyError('id'))"),
        ([str(folder), "3", "--items", str(folder / "query.onnx")], "query.onnx cannot be read (UnicodeDecodeError"),
        ([str(folder), "3", "--items", str(folder)], "cannot be read (IsADirectoryError"),
    ]:
        done = serve(*arguments)
        assert done.returncode == 1 and done.stderr.startswith("error: ") and part in done.stderr
        assert done.stderr.count("\n") == 1 and not done.stdout
    done = serve(str(folder), "3", blocked=("onnxruntime",))
    assert done.returncode == 1 and "pip install onnxruntime" in done.stderr


def test_the_example_is_short():
    assert len((ROOT / "examples" / "serve.py").read_text().splitlines()) <= 40
