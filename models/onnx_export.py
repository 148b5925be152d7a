"""The query side of a trained model as an ONNX file, so that a user can be served without MindSpore.

The graph is written node by node from the weights, by the `onnx` methods of the parts of a model. MindSpore 2.10's own
exporter knows neither the clamped mean nor the lists and zeros of the quantiser's feedback (its errors: Max, make_list,
ZerosLike), and such a graph is small.
"""

import json

import numpy as np

from errors import UserError
from files import fresh
from models.vq.score_features import WIDTH
from retrieval import save_scorer
from retrieval.engines.onnx_query import CODES, LANDMARKS

FORMAT = 3  # of the metadata; `retrieval.engines.onnx_query` reads it
OPSET, IR_VERSION = 17, 8  # what onnxruntime 1.13 and later run
FLOATS = ("weights", "tokens", "scores")  # inputs and outputs of numbers that are not whole


def export_query_side(model, path):
    """Writes histories -> keys of a quantised model in evaluation mode to an ONNX file.

    Input `history`, int64 (B, seq_len): item ids, oldest first, 0 in front where the history is shorter; B is free,
    from 1 on. An id outside 0 .. n_items stops the run with the error of onnxruntime's Gather. A model with features
    of users has the input `user` too, int64 (B, W): their values, W is free, 0 is none. Outputs: `codes`,
    int64 (B, C), and `weights`, float32 (B, C), those of `models.QuerySide.keys`, and `tokens`, float32 (B, K_u, D),
    before quantisation. The metadata tell format, seq_len, K_u, n_items, the names of the values and the meaning of the
    codes. The file is whole or not there; ONNX allows it 2 GB.

    Where codes are of what users score on landmarks (`models.vq.score_features`), the output is `tokens` alone, and
    two files stand beside it: landmarks.npz, which scores them (`retrieval.load_scorer`), and
    codes.onnx, which makes codes and weights of `scores`, float32 (B, WIDTH), summed over tokens.

    Args:
        model: a model whose quantiser has started.
        path: the `pathlib.Path` of the file.

    Raises:
        UserError: the onnx package is missing, the model has no codes, or its encoder no export.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError("--mode export needs the onnx package: pip install onnx") from error
    if not model.is_quantised:
        raise UserError(
            f"a {type(model).__name__} without quantised tokens has no codes to export; train a DQMatch past "
            "--pretrain_epoch."
        )
    for part in (model.tokeniser, model.tokeniser.encoder):
        if not hasattr(part, "onnx"):
            raise UserError(
                f"{type(part).__name__} has no method onnx and cannot be exported; train with another part."
            )
    graph = _Graph(onnx)
    inputs, meanings = {"history": ("batch", model.seq_len)}, {}
    embeddings, mask = model.items.onnx(graph, "history")
    if model.users is not None:
        inputs["user"], meanings["user_values"] = ("batch", "values"), json.dumps(model.users.names)
        embeddings = model.users.onnx(graph, embeddings, mask, "user")
    tokens = model.tokeniser.onnx(graph, embeddings, mask, model.seq_len)  # (K_u, B, D)
    about = {
        "sparcode_format": FORMAT,
        "seq_len": model.seq_len,
        "K_u": model.K_u,
        "n_items": model.items.n_items,
        "num_codebooks": model.quantiser.num_codebooks,
        "K_c": model.quantiser.n_codewords,
        "codes_per_user": model.codes_per_user,
        "history": "item ids 1..n_items, oldest first, left-padded with 0",
        "codes": "sum over m of index_m * K_c^(num_codebooks-1-m), a key of the index",
        "weights": "by which the posting lists of the codes are multiplied",
    } | meanings
    keys = dict.fromkeys(("codes", "weights"), ("batch", model.codes_per_user))
    width, features = model.interaction.formula.token_embedding_size, model.quantiser.features
    of_tokens = {"tokens": ("batch", model.K_u, width)}
    graph("Transpose", tokens, perm=[1, 0, 2], output="tokens")
    if features is not None:
        _write(path, graph, inputs, of_tokens, about)
        save_scorer(model.landmark_scorer(), path.with_name(LANDMARKS))
        graph, inputs, path = _Graph(onnx), {"scores": ("batch", WIDTH)}, path.with_name(CODES)
        tokens, of_tokens = graph("Unsqueeze", features.onnx(graph, "scores"), [0]), {}  # (1, B, W)
    codes, weights = model.quantiser.onnx(graph, tokens, model.K_u)
    graph("Identity", codes, output="codes")
    graph("Identity", weights, output="weights")
    _write(path, graph, inputs, keys | of_tokens, about)


def _write(path, graph, inputs, outputs, about):
    exported = graph.model(inputs, outputs, about).SerializeToString()
    with fresh(path) as file:
        file.write(exported)


class _Graph:
    """An ONNX graph under construction: graph(op, inputs..., attribute=...) adds a node and returns the name of its
    output, a new one unless given. Inputs are names or NumPy arrays; arrays become the graph's constants.
    """

    def __init__(self, onnx):
        self.onnx, self.nodes, self.constants = onnx, [], []

    def __call__(self, op, *inputs, output=None, **attributes):
        output = output or f"{op}_{len(self.nodes)}"
        names = [each if isinstance(each, str) else self.constant(np.asarray(each)) for each in inputs]
        self.nodes.append(self.onnx.helper.make_node(op, names, [output], **attributes))
        return output

    def constant(self, array):
        """The name of an array, for one that several nodes share."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def tensor(self, values, kind):
        """A small array as the value of an attribute."""
        return self.onnx.numpy_helper.from_array(np.array(values, kind))

    def model(self, inputs, outputs, metadata):
        """The checked model; inputs and outputs are dictionaries from names to shapes, int64 but for FLOATS."""
        helper, kinds = self.onnx.helper, self.onnx.TensorProto
        inputs, outputs = (
            [
                helper.make_tensor_value_info(name, kinds.FLOAT if name in FLOATS else kinds.INT64, shape)
                for name, shape in each.items()
            ]
            for each in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "query_side", inputs, outputs, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="SparCode")
        helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
        self.onnx.checker.check_model(model, full_check=True)
        return model
