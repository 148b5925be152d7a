"""The experiments: what is trained, and what it is compared to. One entry each."""

from __future__ import annotations

from baselines import BASELINES
from experiments.experiment import Experiment
from retrieval.interactions import INTERACTIONS

# Every model is trained once, beside the table, and shown with it and without: the table takes no part in training.
# A two-tower model on the tokens of DQMatch is the control of its codes; interactions beside the dot product:
# "interactions".
TRAINED = {
    "TwoTower DNN": {"model": "TwoTower", "encoder": "DNN", "wide": 1},
    "TwoTower": {"model": "TwoTower", "wide": 1},
    "DQMatch": {"model": "DQMatch"},
}
MODELS = {f"{name}{part}": flags for name, flags in TRAINED.items() for part in ("", " + table")}
MODELS["the table alone"] = TRAINED["DQMatch"]
CODES = {label: flags for label, flags in MODELS.items() if "DNN" not in label}  # on one encoder
EXACT = "DQMatch + table, every item scored"  # the control of the index
CODES[EXACT] = TRAINED["DQMatch"]
PARTS = {label: "deep alone" for label in TRAINED} | {"the table alone": "wide alone"}
FAIR = {
    "TwoTower": ("TwoTower DNN",),
    "DQMatch": ("TwoTower DNN", "TwoTower"),
    "DQMatch + table": tuple(label for label in MODELS if label != "DQMatch + table"),
}
PAPER = {"TTM": "TwoTower", "SparCode": "DQMatch", "All-to-All": "AllToAll"}  # its names for our models
PAPER_ENCODERS = ("DNN", "GRU4Rec", "SASRec")
SAME_WINDOWS = {"model": "TwoTower", "encoder": "DNN", "tokeniser": "windows"}  # the control of codes on four tokens
DEEP = {"wide": 0}  # a part of the deep score is studied without the table beside it
SHORT = {"neg_num": 64, "epoch": 20}  # an MLP of every pair costs what its negatives cost
# An interaction is trained without codes, which would hide what it gains; tower is half of an encoder.
ACROSS = {"model": "AllToAll", **SHORT, **DEEP}
ACROSS_ROWS = {
    f"{name} + dot" if each.takes_dot else name: {"interaction": name}
    for name, each in INTERACTIONS.items()
    if name != "tower"
}
ACROSS_ROWS |= {name: {"interaction": name, "interaction_dot": 0} for name in ("DNN", "MoL")}  # what is published
NETWORKS = {
    "dot": {},
    "DNN 16 + dot": {"interaction": "DNN"},
    "DNN 256,256,256 + dot": {"interaction": "DNN", "interaction_hidden": (256, 256, 256)},
    "CrossNet + dot": {"interaction": "CrossNet"},
    "dot, 64 negatives": {"neg_num": 64},
}
LOSS_ROWS = {
    "softmax, 1,024 by popularity^0.5": {},
    "softmax, 256 by popularity^0.5": {"neg_num": 256},
    "softmax, 1,024 uniform": {"neg_power": 0.0},
    "softmax, in batch": {"negatives": "in-batch"},
    "softmax, mixed": {"negatives": "mixed"},
    "softmax, all items": {"negatives": "all"},
    "softmax of cosines": {"interaction": "cosine"},
    "gBCE": {"loss": "gBCE"},
    "BCE": {"loss": "BCE"},
}
# The paper's codes, two of 256 of each token: put under a trained model they would be the start of these.
OF_TOKENS = {"encoder": "DNN", "quantiser": "residual", "num_codebooks": 2, "K_c": 256, "token_lookups": 1}
CODED = DEEP | {"quantiser": "residual", "token_lookups": 1, "K_c": 1024}  # as scores with a bias need
WINDOWS = DEEP | {"encoder": "DNN"}  # and a part of several tokens on an encoder that makes several
WHOLE = {"index_loss": None, "max_postings": None, "index_format": "float32"}  # no list of a code is shortened
ENCODERS = ("DNN", "YoutubeDNN", "GRU4Rec", "SASRec", "LiGR")
CAUSAL = {name: {"seq_len": 20} for name in ("GRU4Rec", "SASRec", "LiGR")}  # as many items as the others read
MASKS = {"": {}, ", seen items too": {"exclude_seen": 0}}
DSSM = {"model": "TwoTower", "encoder": "DSSM", "interaction": "tower", "hidden": (512, 256), "seq_len": 10}
DSSM |= {"interaction_hidden": (512, 256), "interaction_temperature": 0.05, "embedding_size": 128}
DSSM |= {"token_embedding_size": 128, "lr": 1e-3, "neg_power": 0.75}
SIMPLEX = {"model": "TwoTower", "encoder": "SimpleX", "interaction": "cosine", "interaction_temperature": 1.0}
SIMPLEX |= {"loss": "CCL", "lr": 1e-2, "neg_power": 0.0}  # by validation; other margins than CCL's default are worse
CAPS = (25, 100, 400, 1600)
# Beside the table and through the index; of codes that are nearest ones 256^2 stand for the paper's.
SERVED = {
    f"{name}{part}": flags | {"interaction": name}
    for name in ("dot", "MoL")
    for part, flags in {
        "": {"model": "AllToAll"},
        " + table": {"model": "AllToAll"},
        " + table, index": {"model": "DQMatch"},
    }.items()
}
SERVED["MoL + table, index of nearest codes"] = {
    "model": "DQMatch",
    "interaction": "MoL",
    "quantiser": "residual",
    "num_codebooks": 2,
    "K_c": 256,
}
SERVED["MoL + table, index, reranked"] = SERVED["MoL + table, index"] | {"rerank": 50}
SERVED_AGAINST = {
    "MoL": ("dot",),
    "MoL + table": ("dot + table",),
    "MoL + table, index": ("dot + table, index", "MoL + table", "MoL + table, index of nearest codes"),
    "MoL + table, index of nearest codes": ("dot + table, index", "MoL + table"),
    "MoL + table, index, reranked": ("dot + table, index", "MoL + table", "MoL + table, index"),
    "dot + table, index": ("dot + table",),
}

EXPERIMENTS = {
    "accuracy": Experiment(
        "What the table gains, and what codes and the index cost",
        CODES,
        {
            "DQMatch": ("TwoTower",),
            "DQMatch + table": tuple(label for label in CODES if label != "DQMatch + table"),
        },
        facts=("bytes",),
        paths={label: PARTS[label] for label in CODES if label in PARTS} | {EXACT: "exhaustive"},
    ),
    "ladder": Experiment(
        "From what is popular to all-to-all: every rival on the same users",
        {name: {"model": name} for name in BASELINES} | MODELS,
        FAIR | {name: ("DQMatch + table",) for name in BASELINES},
        facts=("seconds",),
        paths=PARTS,
    ),
    "two-tower-baselines": Experiment(
        "The published two-tower table: each system, and ours, by its protocol",
        {
            "Global Hot": {"model": "GlobalHot"},
            "Spark ALS": {"model": "SparkALS"},
            "Swing I2I": {"model": "Swing"},
            "Item CF I2I": {"model": "ItemCF"},
            "DSSM BCE, 10 negatives": DSSM | {"loss": "BCE", "neg_num": 10, "negatives": "own"},
            "DSSM BCE, 100 negatives": DSSM | {"loss": "BCE", "neg_num": 100},
            "DSSM softmax in batch": DSSM | {"negatives": "in-batch"},
            "SimpleX CCL, 100 negatives": SIMPLEX | {"neg_num": 100},
            "TwoTower": {"model": "TwoTower", "seq_len": 20},  # its rivals read ten items
            "DQMatch": {"model": "DQMatch", "seq_len": 20},
        },
        {"DQMatch": ("TwoTower", "Item CF I2I", "DSSM softmax in batch")},
        flags={"split": "last-3", "exclude_seen": 0, "topk": (1, 5, 10, 20, 50), "monitor": "recall@20"},
        facts=("seconds",),
        published={
            "Global Hot": ".0495 / .0025 / .0089 / .0173",
            "Spark ALS": ".0494 / .0025 / .0157 / .0177",
            "Swing I2I": ".1267 / .0063 / .0296 / .0505",
            "Item CF I2I": ".1877 / .0094 / .0509 / .0805",
            "DSSM BCE, 10 negatives": ".2155 / .0108 / .0433 / .0800",
            "DSSM BCE, 100 negatives": ".2263 / .0113 / .0477 / .0859",
            "DSSM softmax in batch": ".3016 / .0151 / .0780 / .1261",
        },
        source="MetaSpore, demo/twotower (README): R / P / MAP / NDCG@20 on MovieLens-1M with ratings, targets rated "
        "above 2; its DSSM reads the user's id, ours does not; its negatives are drawn per user, as ours are where "
        "they are 10; 100 are shared by a batch.",
    ),
    "paper": Experiment(
        "The paper's models by the paper's settings; --encoder GRU4Rec or SASRec has its other encoders",
        {
            f"{name}{mask}": {"model": model, "preset": "paper"} | flags
            for name, model in PAPER.items()
            for mask, flags in MASKS.items()
        },
        {f"{name}{mask}": (f"TTM{mask}",) for name in PAPER if name != "TTM" for mask in MASKS}
        | {f"SparCode{mask}": (f"TTM{mask}", f"All-to-All{mask}") for mask in MASKS},
        facts=("seconds",),
    ),
    # All-to-All of a causal encoder, a dot product on one token, would be TTM: "interactions" has the others.
    "movielens": Experiment(
        "The paper's MovieLens table by our settings, without the wide part",
        {
            f"{name} {encoder}{mask}": {"model": PAPER[name], "encoder": encoder} | flags
            for name in ("TTM", "SparCode")
            for encoder in PAPER_ENCODERS
            for mask, flags in MASKS.items()
        }
        | {f"TTM DNN on SparCode's windows{mask}": SAME_WINDOWS | flags for mask, flags in MASKS.items()},
        {f"SparCode {encoder}{mask}": (f"TTM {encoder}{mask}",) for encoder in PAPER_ENCODERS for mask in MASKS}
        | {f"SparCode DNN{mask}": (f"TTM DNN{mask}", f"TTM DNN on SparCode's windows{mask}") for mask in MASKS},
        flags=DEEP | {"neg_num": 1024},  # one token or four, the same negatives
        facts=("seconds",),
        published={
            "TTM DNN, seen items too": "26.534 / 17.690 / 8.124",
            "TTM GRU4Rec, seen items too": "28.261 / 18.473 / 8.356",
            "TTM SASRec, seen items too": "29.828 / 19.202 / 8.754",
            "SparCode DNN, seen items too": "27.184 / 18.295 / 8.393",
            "SparCode GRU4Rec, seen items too": "29.492 / 20.050 / 8.888",
            "SparCode SASRec, seen items too": "30.142 / 20.480 / 9.020",
        },
        source="SparCode's earlier version (WWW'23 submission): R / N / P@50 in percent on MovieLens-10M, a split that "
        "it does not state, its own settings and interaction; so only the order of the rows compares.",
    ),
    "encoders": Experiment(
        "Which encoder pays, in a two-tower model without the table",
        {name: {"model": "TwoTower", "encoder": name, "wide": 1} | CAUSAL.get(name, {}) for name in ENCODERS}
        | {"LiGR, longer histories": {"model": "TwoTower", "wide": 1}},
        {name: tuple(other for other in ("SASRec", "DNN") if other != name) for name in ENCODERS if name != "DNN"}
        | {"LiGR, longer histories": ("LiGR", "SASRec")},
        facts=("seconds",),
        paths=dict.fromkeys((*ENCODERS, "LiGR, longer histories"), "deep alone"),
    ),
    "interactions": Experiment(
        "Which interaction pays, on the same tokens as the dot product",
        {
            f"{name}{mask}": ACROSS | flags | later
            for name, flags in ACROSS_ROWS.items()
            for mask, later in MASKS.items()
        },
        {f"{name}{mask}": (f"dot{mask}",) for name in ACROSS_ROWS if name != "dot" for mask in MASKS},
        facts=("epochs", "seconds"),
    ),
    "networks": Experiment(
        "The paper's network of every pair beside a dot product, with the paper's ten negatives",
        {
            f"{name}{mask}": {"model": "AllToAll", "neg_num": 10} | flags | later
            for name, flags in NETWORKS.items()
            for mask, later in MASKS.items()
        },
        {f"{name}{mask}": (f"dot{mask}",) for name in NETWORKS if name != "dot" for mask in MASKS},
        facts=("epochs", "seconds"),
        flags=DEEP | {"seq_len": 20, "epoch": 12},  # nine times the time of a dot product
    ),
    "served": Experiment(
        "What an interaction gains beside the table, and through the index",
        {f"{name}{mask}": flags | later for name, flags in SERVED.items() for mask, later in MASKS.items()},
        {
            f"{name}{mask}": tuple(f"{other}{mask}" for other in others)
            for name, others in SERVED_AGAINST.items()
            for mask in MASKS
        },
        facts=("epochs", "seconds", "bytes"),
        paths={f"{name}{mask}": "deep alone" for name in ("dot", "MoL") for mask in MASKS},
        flags=SHORT | {"wide": 1},
    ),
    "losses": Experiment(
        "Which loss and which negatives pay, in a two-tower model without the table",
        LOSS_ROWS,
        {label: (next(iter(LOSS_ROWS)),) for label in list(LOSS_ROWS)[1:]},
        facts=("epochs", "seconds"),
        flags={"model": "TwoTower", "epoch": 20, "neg_num": 1024} | DEEP,
    ),
    "codebooks": Experiment(
        "How many codebooks (M) of how many codewords (N), under the same trained model",
        {"no codes": {"model": "TwoTower", "wide": 1}}
        | {
            f"M = {books}, N = {words}": {"quantiser": "residual", "num_codebooks": books, "K_c": words, **DEEP}
            for books, words in ((1, 256), (1, 1024), (2, 256), (4, 16))
        }
        | {f"pursuit, N = {words}": {"K_c": words, **DEEP} for words in (256, 2048)}
        | {f"pursuit, {most} look-ups": {"token_lookups": most, **DEEP} for most in (2, 4, 16)},
        {
            "M = 1, N = 256": ("no codes", "M = 2, N = 256"),
            "M = 2, N = 256": ("no codes",),
            "M = 4, N = 16": ("no codes", "M = 2, N = 256"),
            "pursuit, N = 2048": ("no codes", "M = 2, N = 256"),
            "pursuit, 16 look-ups": ("no codes", "pursuit, N = 2048"),
        },
        facts=("codes", "bytes", "missing_share"),
        paths={"no codes": "deep alone"},
    ),
    "trained-codes": Experiment(
        "What codes that take part in training gain over the same tokens without codes",
        {
            "no codes": SAME_WINDOWS,
            "pursuit, put under it": {"encoder": "DNN"},
            "trained, straight through": OF_TOKENS | {"rotation": 0},
            "trained, rotation trick": OF_TOKENS,
        },
        {
            "pursuit, put under it": ("no codes",),
            "trained, straight through": ("no codes",),
            "trained, rotation trick": ("no codes", "pursuit, put under it", "trained, straight through"),
        },
        flags=DEEP,
        facts=("epochs", "seconds", "bytes"),
    ),
    "tokens": Experiment(
        "How many tokens of the user (K_u)",
        {f"K_u, {n}": {"K_u": n, **WINDOWS} for n in (1, 2, 4, 5, 10)},
        {f"K_u, {n}": ("K_u, 4",) for n in (1, 2, 5, 10)},
        facts=("codes", "bytes"),
        x="K_u",
    ),
    "item-tokens": Experiment(
        "How many tokens of the item (K_i), which the MLP reads and a dot product does not",
        {f"K_i, {n}": {"K_i": n, "interaction": "DNN", **WINDOWS} for n in (1, 2, 4, 8)},
        {f"K_i, {n}": ("K_i, 4",) for n in (1, 2, 8)},
        flags=SHORT,
        facts=("codes", "bytes"),
        x="K_i",
    ),
    "sparsity": Experiment(
        "What shorter posting lists cost",
        {"no limit": WHOLE}
        | {f"float32, {most}": WHOLE | {"max_postings": most} for most in CAPS}
        | {f"uint8, {most}": WHOLE | {"max_postings": most, "index_format": "uint8"} for most in CAPS},
        {f"{kind}, {most}": ("no limit",) for kind in ("float32", "uint8") for most in CAPS},
        facts=("postings", "sparsity", "bytes", "queries_per_second"),
        x="bytes",
    ),
    "bias": Experiment(
        "What a bias under the ReLU of a score saves and costs",
        {"the plain sum": CODED} | {f"bias, {bias}": CODED | {"score_bias": bias} for bias in (-2.0, 0.0, 2.0)},
        {f"bias, {bias}": ("the plain sum",) for bias in (-2.0, 0.0, 2.0)},
        facts=("postings", "sparsity", "bytes"),
    ),
}
