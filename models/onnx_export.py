"""The query side of a trained model as an ONNX file, so that a user can be served without MindSpore.

The graph is written node by node from the weights, by the `onnx` methods of the parts of a model. MindSpore 2.10's own
exporter knows neither the clamped mean nor the lists and zeros of the quantiser's feedback (its errors: Max, make_list,
ZerosLike), and such a graph is small.
"""

import json

import numpy as np

from errors import UserError
from files import fresh

FORMAT = 1  # of the metadata; `retrieval.engines.onnx_query` reads it
OPSET, IR_VERSION = 17, 8  # what onnxruntime 1.13 and later run


def export_query_side(model, path):
    """Writes histories -> codes of a quantised model in evaluation mode to an ONNX file.

    Input `history`, int64 (B, seq_len): item ids, oldest first, 0 in front where the history is shorter; B is free,
    from 1 on. An id outside 0 .. n_items stops the run with the error of onnxruntime's Gather. A model with features
    of users has the input `user` too, int64 (B, W): their values, W is free, 0 is none. Output `codes`, int64 (B, K_u *
    P) of P look-ups per token: those of `models.QuerySide.codes`. The metadata tell format, seq_len, K_u, n_items, the
    names of the values and the meaning of the codes. The file is whole or not there; ONNX allows it 2 GB.

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
    codes = _codes(graph, model.quantiser, tokens, model.K_u)
    exported = graph.model(
        inputs,
        {codes: ("batch", model.codes_per_user)},
        {
            "sparcode_format": FORMAT,
            "seq_len": model.seq_len,
            "K_u": model.K_u,
            "token_lookups": model.quantiser.lookups,
            "n_items": model.items.n_items,
            "num_codebooks": model.quantiser.num_codebooks,
            "K_c": model.quantiser.n_codewords,
            "history": "item ids 1..n_items, oldest first, left-padded with 0",
            "codes": "token_lookups per token: sum over m of index_m * K_c^(num_codebooks-1-m), a key of the index",
        }
        | meanings,
    )
    with fresh(path) as file:
        file.write(exported.SerializeToString())


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

    def model(self, inputs, outputs, metadata):
        """The checked model; inputs and outputs are dictionaries from names to shapes, all int64."""
        helper, int64 = self.onnx.helper, self.onnx.TensorProto.INT64
        inputs, outputs = (
            [helper.make_tensor_value_info(name, int64, shape) for name, shape in each.items()]
            for each in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, "query_side", inputs, outputs, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="SparCode")
        helper.set_model_props(model, {name: str(value) for name, value in metadata.items()})
        self.onnx.checker.check_model(model, full_check=True)
        return model


def _codes(graph, quantiser, tokens, k_u):
    """The codes that tokens look up, (K_u, B, D) -> (B, K_u * P), in the steps of `models.vq.pursuit`."""
    tables, n = quantiser.tables(), quantiser.n_codewords  # (M, N, D)
    words = np.concatenate(tables)  # (M * N, D)
    transposed, half_norm = graph.constant(words.T), graph.constant(0.5 * np.square(words).sum(1))
    # Of codeword and codeword; onnxruntime computes it when it opens the file, which stays small.
    gram = graph("MatMul", graph.constant(words), transposed)  # (M * N, M * N)
    products = graph("MatMul", tokens, transposed)  # (K_u, B, M * N)
    start = graph("Neg", half_norm)
    columns, closeness = [], start
    for place in range(k_u * quantiser.lookups):
        if place % quantiser.lookups == 0:
            product = graph("Gather", products, place // quantiser.lookups)  # (B, M * N)
            closeness = closeness if quantiser.error_feedback else start
        closeness, code = graph("Add", closeness, product), 0
        for book in range(len(tables)):
            part = graph("Slice", closeness, [book * n], [(book + 1) * n], [1])
            nearest = graph("ArgMax", part, axis=1)  # (B, 1)
            row = graph("Squeeze", graph("Add", nearest, book * n), [1])
            closeness = graph("Sub", closeness, graph("Gather", gram, row))
            code = graph("Add", graph("Mul", code, n), nearest)  # (B, 1)
        columns.append(code)
    return graph("Concat", *columns, axis=1, output="codes")
