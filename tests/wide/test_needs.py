"""The table and the baselines are fitted where MindSpore is not installed."""

import subprocess
import sys
from pathlib import Path


def test_nothing_here_needs_mindspore():
    code = "import sys, wide.blend, baselines.linear; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
