"""The exported query side gives the codes that MindSpore gives, refuses what it cannot serve, and says what it is."""

import sys

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from mindspore import nn

import models
from data.queries import Queries
from data.ragged import Ragged
from errors import UserError
from models import onnx_export
from models.onnx_export import export_query_side
from retrieval.engines.onnx_query import OnnxQuery


def random_histories(n=1000, longest=30, seed=3):
    """n histories of 0 .. longest items each, every length among them."""
    rng = np.random.default_rng(seed)
    return Ragged.from_rows([rng.integers(1, 41, i % (longest + 1)) for i in range(n)])


@pytest.fixture
def trained(make_model):
    """trained(K_u=2, ...) -> a small DQMatch whose every weight has moved, none a zero any more, after its k-means
    start. Noise instead of steps: compiling those takes seconds for each shape."""

    def make(**changes):
        model, rng = make_model("DQMatch", **changes), np.random.default_rng(1)
        for p in model.trainable_params():
            p.set_data(ms.Tensor(p.asnumpy() + rng.normal(0, 0.1, p.shape).astype(np.float32)))
        model.items.table[0] = 0  # as training leaves it
        model.start_quantiser(
            models.QuerySide(model, 64).raw_tokens(Queries.without_targets(random_histories(60, seed=9))), 32, 0
        )
        return model

    return make


@pytest.fixture
def exported(trained, tmp_path):
    """A small trained model and the file of its query side."""
    model = trained()
    export_query_side(model, tmp_path / "query.onnx")
    return model, tmp_path / "query.onnx"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        *({"quantiser": name, "K_u": 6, "num_codebooks": 4} for name in ("product", "residual")),
        {"quantiser": "pursuit", "interaction": "dot", "num_codebooks": 1, "K_c": 40},
        {"quantiser": "pursuit", "interaction": "DNN", "num_codebooks": 1, "K_c": 40},
        {"K_u": 1, "num_codebooks": 1},
        {"hidden": (), "token_embedding_size": 6, "num_codebooks": 3, "K_c": 7},
        {"hidden": (9, 5), "dropout": 0.5, "history_dropout": 0.5},
    ],
)
def test_codes_equal_those_of_mindspore(changes, trained, tmp_path):
    """For histories of every length, shorter and longer than the encoder reads, and whatever the batch."""
    model, path = trained(**changes), tmp_path / "query.onnx"
    export_query_side(model, path)
    histories, query = random_histories(), OnnxQuery(path)
    tokens, codes, weights = query.encode(histories)
    assert codes.dtype == np.int64 and len(np.unique(codes)) > 10
    side, asked = models.QuerySide(model, 1024), Queries.without_targets(histories)
    np.testing.assert_allclose(tokens, side.raw_tokens(asked), rtol=1e-4, atol=2e-5)
    expected = side.keys(asked)
    # Of a user who is a codeword, what is left to look up is rounding.
    told = expected[1] > 1e-6 * expected[1].max(1, keepdims=True)
    np.testing.assert_array_equal(codes[told], expected[0][told])
    assert told.mean() > 0.99
    np.testing.assert_allclose(weights, expected[1], rtol=1e-4, atol=2e-5)
    for row in (0, 1, 6, 30):  # empty, one item, full, longer
        np.testing.assert_array_equal(query.codes([histories[row].tolist()])[0], codes[row])
    none = [each.shape for each in query.encode([])]
    assert none == [(0, *tokens.shape[1:]), (0, model.codes_per_user), (0, model.codes_per_user)]


def test_the_file_says_what_it_is(exported):
    model, path = exported
    query = OnnxQuery(path)
    assert (query.seq_len, query.n_items) == (model.seq_len, model.items.n_items)
    assert query.codes_per_user == model.codes_per_user
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("history", "tensor(int64)", ["batch", 6])]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("codes", "tensor(int64)", ["batch", 12]),
        ("weights", "tensor(float)", ["batch", 12]),
        ("tokens", "tensor(float)", ["batch", 3, 8]),
    ]
    assert session.get_modelmeta().custom_metadata_map["K_c"] == "16"
    assert [each.name for each in path.parent.iterdir()] == ["query.onnx"]  # no temporary file stays


@pytest.mark.parametrize("item", [-1, 41])
def test_an_item_outside_the_catalogue_is_refused(item, exported):
    """By OnnxQuery with a sentence, and by the graph itself: ONNX would read id -1 as the last item."""
    _, path = exported
    with pytest.raises(ValueError, match=rf"Item {item} is outside the items 1\.\.40"):
        OnnxQuery(path).codes([[3, item]])
    session = onnxruntime.InferenceSession(path)
    with pytest.raises(Exception, match="Gather"):
        session.run(None, {"history": np.array([[0, 0, 0, 0, 3, item]])})


def test_a_file_of_another_kind_is_refused(exported, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        OnnxQuery(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as an ONNX model"):
        OnnxQuery(tmp_path / "text.onnx")
    model, path = exported
    monkeypatch.setattr(onnx_export, "FORMAT", onnx_export.FORMAT + 1)
    export_query_side(model, path)
    with pytest.raises(ValueError, match="not a query side of format 3; write it again"):
        OnnxQuery(path)


def test_models_without_codes_are_refused(make_model, tmp_path):
    for name in ("TwoTower", "AllToAll", "DQMatch"):  # this DQMatch is from before its quantiser started
        with pytest.raises(UserError, match=f"{name} without quantised tokens has no codes"):
            export_query_side(make_model(name), tmp_path / "query.onnx")
    assert not list(tmp_path.iterdir())


def test_an_encoder_without_an_export_is_refused_by_name(trained, tmp_path):
    class Oracle(nn.Cell):
        pass

    model = trained()
    model.tokeniser.encoder = Oracle()
    with pytest.raises(UserError, match="Oracle has no method onnx and cannot be exported"):
        export_query_side(model, tmp_path / "query.onnx")


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_a_missing_package_is_told_with_the_command_that_installs_it(missing, exported, monkeypatch):
    model, path = exported
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises((UserError, ImportError), match=rf"pip install {missing}$"):
        export_query_side(model, path) if missing == "onnx" else OnnxQuery(path)


def test_later_training_shows_in_a_new_export_only(exported):
    model, path = exported
    before = OnnxQuery(path).codes(random_histories(50))
    model.quantiser.codebooks[0].table.set_data(ms.Tensor(model.quantiser.tables()[0][::-1].copy()))
    np.testing.assert_array_equal(OnnxQuery(path).codes(random_histories(50)), before)
    export_query_side(model, path)
    assert (OnnxQuery(path).codes(random_histories(50)) != before).all()
