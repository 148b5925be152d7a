"""Tiny trained runs on the built-in sample, made once."""

import pytest

import work

SMALL = """--dataset sample --epoch 2 --pretrain_epoch 1 --hidden 16 --interaction_hidden 4 --embedding_size 8
    --encoder DNN --token_embedding_size 8 --K_c 16 --positions_per_user 5 --neg_num 64 --lr 0.02 --batch_size 128
    --inference_batch_size 256 --topk 5,20 --monitor recall@20 --max_postings 300 --wide_postings 300
    --index_format float32""".split()  # noqa: SIM905


@pytest.fixture
def small():
    """The flags of these runs."""
    return SMALL


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder that holds data/ and runs/DQMatch, runs/TwoTower and runs/AllToAll."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model in ("DQMatch", "TwoTower", "AllToAll"):
            assert work.main([*SMALL, "--model", model, "--name", model]) == 0
    return folder
