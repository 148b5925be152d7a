"""What it costs to add a part: one class or function and one line in a registry, here for a part of each kind.

Each is defined in this file alone and taken from training through index, evaluation and files to serving.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mindspore import ops

import models
from baselines import BASELINES
from experiments import EXPERIMENTS
from experiments.experiment import Experiment
from matcher import Matcher
from models.encoders import DNN, ENCODERS
from models.losses import LOSSES, collision
from models.tokenisers import TOKENISERS, Heads
from retrieval.interactions import INTERACTIONS, Interaction
from retrieval.served import open_served
from runs import Run
from work import main

SMALL = """--dataset sample --epoch 2 --pretrain_epoch 1 --hidden 16 --interaction_hidden 4 --embedding_size 8 --K_c 16
    --encoder DNN --token_embedding_size 8 --positions_per_user 5 --neg_num 32 --batch_size 256
    --inference_batch_size 256 --topk 5,20 --monitor recall@20 --index_loss none --name part""".split()  # noqa: SIM905


class Distance(Interaction):
    """- |token - item|^2, up to what is the same for all items of a token."""

    takes_dot = False

    def item_side(self, xp, w, items):
        return items, (items * items).sum(-1)

    def pairs(self, xp, w, tokens, items):
        return 2 * xp.inner(tokens[0], items[0]) - items[1][..., None, :]


class Newest(DNN):
    """The DNN encoder of the newest item alone."""

    def construct(self, embeddings, mask, noise):
        return super().construct(embeddings[:, -1:], mask[:, -1:], noise)

    def onnx(self, graph, embeddings, mask, length):
        last = np.array([length - 1])
        return super().onnx(graph, graph("Gather", embeddings, last, axis=1), graph("Gather", mask, last, axis=1), 1)


class Mirrored(Heads):
    """Every second head reads the user vector turned round."""

    def vectors_by_token(self, embeddings, mask, noise, every):
        vector = self.user_vectors(embeddings, mask, noise, every)
        return ops.stack([vector if k % 2 else -vector for k in range(self.K_u)])

    def onnx(self, graph, embeddings, mask, length):
        vector = self.encoder.onnx(graph, embeddings, mask, length)
        signs = np.array([1 if k % 2 else -1 for k in range(self.K_u)], np.float32).reshape(-1, 1, 1)
        return self.onnx_heads(graph, graph("Mul", signs, graph("Unsqueeze", vector, [0])))


def pairwise(positive, negative, log_expected, target, drawn):
    """BPR: the positive should beat each negative (Rendle et al., 2009)."""
    margin = ops.masked_fill(negative - positive, collision(target, drawn), -1e9)
    return ops.relu(margin).mean(1) + ops.log1p(ops.exp(-ops.abs(margin))).mean(1)


class Newcomers:
    """A baseline: the items with the highest ids first."""

    def fit(self, sequences, n_items):
        self.n_items = n_items
        return self

    def recommend(self, queries, k, exclude_seen=True):
        from recommender import recommend_by_scores

        scores = np.arange(self.n_items, dtype=np.float32)
        return recommend_by_scores(lambda each: np.tile(scores, (len(each), 1)), queries, k, exclude_seen, self.n_items)


@pytest.mark.parametrize(
    "parts",
    [
        {"interaction": (INTERACTIONS, Distance)},
        {"encoder": (ENCODERS, Newest), "tokeniser": (TOKENISERS, Mirrored), "loss": (LOSSES, pairwise)},
    ],
    ids=["interaction", "the others"],
)
def test_parts_of_a_model_from_training_to_serving(parts, tmp_path, monkeypatch):
    flags = []
    for flag, (registry, part) in parts.items():
        monkeypatch.setitem(registry, part.__name__, part)  # the one line
        flags += [f"--{flag}", part.__name__]
    monkeypatch.chdir(tmp_path)
    assert main([*SMALL, *flags]) == 0
    best = "runs/part/best.ckpt"
    assert main(["--mode", "test", "--checkpoint", best]) == 0
    assert main(["--mode", "export", "--checkpoint", best]) == 0
    run = Run("runs/part")
    queries = run.data.test.take(np.arange(3))
    items, scores = run.recommender().recommend(queries, 10)
    expected, expected_scores = run.exhaustive().recommend(queries, 10)
    np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
    assert (np.sort(items) == np.sort(expected)).mean() > 0.9  # equal scores may stand in another order
    served, served_scores = open_served("runs/part").recommend(queries, 10)
    np.testing.assert_allclose(served_scores, scores, atol=1e-4)
    assert (np.sort(served) == np.sort(items)).mean() > 0.9
    of_scores = [Path("runs/part", name) for name in ("codes.onnx", "landmarks.npz")]
    assert {path.exists() for path in of_scores} == {"interaction" in parts}
    for path in of_scores if "interaction" in parts else ():
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            open_served("runs/part")
        path.write_bytes(whole)
    if "interaction" in parts:
        reranked_ones_are_served_too(run, queries, served, served_scores)


def reranked_ones_are_served_too(run, queries, by_codes, scores_by_codes):
    """Beside item keys, and until the next export without --rerank."""
    assert run.matcher.item_keys is not None
    best = str(run.folder / "best.ckpt")
    settings = replace(run.matcher.settings, rerank=50)
    expected, expected_scores = Matcher(run.model, run.matcher.wide, settings).through(run.index).recommend(queries, 10)
    for rerank in ("50", "0"):
        assert main(["--mode", "export", "--checkpoint", best, "--rerank", rerank]) == 0
        served, scores = open_served(run.folder).recommend(queries, 10)
        if rerank == "50":
            np.testing.assert_allclose(scores, expected_scores, atol=1e-4)
            assert (served == expected).mean() > 0.9 and (scores != scores_by_codes).any()
    np.testing.assert_array_equal(served, by_codes)
    assert not (run.folder / "reranker.npz").exists()


def test_a_baseline(tmp_path, monkeypatch):
    monkeypatch.setitem(BASELINES, "Newcomers", Newcomers)
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "sample", "--model", "Newcomers", "--name", "part"]) == 0
    assert (tmp_path / "runs" / "part" / "metrics.csv").exists()


def test_a_table(tmp_path, monkeypatch):
    rows = {"popular": {"model": "GlobalHot"}, "Markov": {"model": "Markov"}}
    monkeypatch.setitem(EXPERIMENTS, "two", Experiment("Does order pay?", rows, {"Markov": ("popular",)}))
    monkeypatch.chdir(tmp_path)
    assert main(["--experiment", "two", "--dataset", "sample"]) == 0
    (table,) = (tmp_path / "results").rglob("*.md")
    assert "Markov" in table.read_text() and "popular" in table.read_text()


def test_every_part_is_known_to_the_builder():
    assert set(models.PARTS) == {"model", "tokeniser", "encoder", "interaction", "quantiser", "loss"}
