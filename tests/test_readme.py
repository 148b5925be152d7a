"""What the README shows does run."""

import re
import runpy
from pathlib import Path

from retrieval.interactions import INTERACTIONS

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_of_a_new_interaction_trains_builds_its_index_and_recommends(tmp_path, monkeypatch):
    (example,) = re.findall(r"```python\n(# A new interaction.*?)```", README.read_text(), re.S)
    assert len(example.splitlines()) <= 25
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "example.py"  # MindSpore reads the source of what it compiles
    program.write_text(example)
    before = set(INTERACTIONS)
    try:
        found = runpy.run_path(str(program))
    finally:
        for name in set(INTERACTIONS) - before:
            del INTERACTIONS[name]
    assert found["items"].shape[1] == 10 and (found["items"] > 0).all()
