"""What a run was trained with is read from its config.json, and nothing else."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from config import VERSION, read_config, settings_of, write_config
from errors import UserError
from files import content_digest
from work import Hyperparameters, check

DATA = SimpleNamespace(prepared=SimpleNamespace(description={"dataset": "mine"}))


def rewrite(path, **changes):
    """Change a config.json, and sign it anew."""
    config = json.loads(path.read_text()) | changes
    config.pop("sha256", None)
    path.write_text(json.dumps(config | {"sha256": content_digest(config)}))


def test_settings_of_a_checkpoint(tmp_path):
    checkpoint = tmp_path / "best.ckpt"
    with pytest.raises(UserError, match="must stand beside"):
        settings_of(checkpoint, Hyperparameters(), set())
    trained = check(Hyperparameters(seed=3, topk=(1, 5), max_postings=70))
    write_config(tmp_path, trained, DATA)
    assert settings_of(checkpoint, Hyperparameters(), set()) == trained
    chosen = settings_of(checkpoint, Hyperparameters(max_postings=9, rerank=5), {"max_postings"})
    assert chosen == dataclasses.replace(trained, max_postings=9)
    for flag in ("K_u", "split_seed", "seq_len"):
        with pytest.raises(UserError, match=f"--{flag} cannot change a trained model"):
            settings_of(checkpoint, Hyperparameters(), {flag})


def test_settings_of_another_program_are_refused(tmp_path):
    config = tmp_path / "config.json"
    write_config(tmp_path, Hyperparameters(), DATA)
    settings = read_config(config)["hyperparameters"]
    rewrite(config, hyperparameters=settings | {"warp": 9})
    with pytest.raises(UserError, match="other settings than this version: warp"):
        settings_of(config, Hyperparameters(), set())
    rewrite(config, hyperparameters=settings, version=VERSION - 1)
    with pytest.raises(UserError, match=f"is of version {VERSION - 1}, this program reads {VERSION}"):
        settings_of(config, Hyperparameters(), set())
    config.write_text(config.read_text().replace(f'"version": {VERSION - 1}', f'"version": {VERSION}'))
    with pytest.raises(UserError, match="was changed after the run"):
        settings_of(config, Hyperparameters(), set())
