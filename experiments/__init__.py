"""The paper's tables and ours: a specification of a few lines each, and one runner for all of them.

`python work.py --experiment NAME` trains what runs/ does not hold yet and writes results/.
"""

from experiments.runner import run
from experiments.specifications import EXPERIMENTS

__all__ = ["EXPERIMENTS", "run"]
