"""Alternating least squares on Spark, on this machine or on a cluster."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile

import numpy as np

from baselines.factors import Factors
from data.ragged import Ragged

INSTALL = "install Java (Debian: `apt-get install default-jre-headless`) and pyspark (`pip install pyspark pyarrow`)"


class SparkALS(Factors):
    """Matrix factorisation, see `Factors`; the item factors are those of Spark MLlib's ALS.

    Its ridge grows with the number of items of a user. MetaSpore's published row is implicit=False, nonnegative=True,
    factors=256, iterations=100 on the ratings; here every interaction is a 1, which leaves an explicit model little to
    tell. The Spark session stays open until Python ends: starting one takes long.

    Args:
        factors, iterations, confidence, seed: as in `Factors`.
        regularisation: the ridge per interaction.
        implicit: absences count as 0; else they are unknown.
        nonnegative: factors are 0 or more.
        master: URL of a cluster, or local[*].
    """

    def __init__(
        self,
        factors: int = 64,
        regularisation: float = 0.05,
        iterations: int = 10,
        confidence: float = 1.0,
        implicit: bool = True,
        nonnegative: bool = False,
        master: str = "local[*]",
        seed: int = 0,
    ):
        super().__init__(factors, iterations, confidence, seed)
        if regularisation <= 0:
            raise ValueError(f"regularisation is {regularisation}; it must be positive.")
        self.regularisation, self.implicit, self.nonnegative = regularisation, implicit, nonnegative
        self.master = master

    @classmethod
    def missing(cls) -> str:
        """pyspark or Java; see `Factors.missing`."""
        if importlib.util.find_spec("pyspark") is None:
            return f"SparkALS needs pyspark; {INSTALL}."
        if not (shutil.which("java") or os.environ.get("JAVA_HOME")):
            return f"SparkALS finds no Java; {INSTALL}."
        return ""

    def learn(self, sequences: Ragged, n_items: int) -> np.ndarray:
        """Item factors (n_items, factors) float32, 0 for items without training."""
        import pandas as pd
        from pyspark.ml.recommendation import ALS
        from pyspark.sql import SparkSession

        settings = {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.memory": "4g",
            "spark.sql.execution.arrow.pyspark.enabled": "true",
        }
        builder = SparkSession.builder.master(self.master).appName("SparCode")
        for name, value in settings.items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
        als = ALS(
            rank=self.factors,
            maxIter=self.iterations,
            regParam=self.regularisation,
            implicitPrefs=self.implicit,
            alpha=self.confidence,
            nonnegative=self.nonnegative,
            seed=self.seed,
        )
        taken = pd.DataFrame({"user": sequences.row_of_value(), "item": sequences.values}).assign(rating=1.0)
        item_factors = np.zeros((n_items, self.factors), np.float32)
        with tempfile.TemporaryDirectory() as folder:
            if self.master.startswith("local"):  # else a hundred iterations are one long plan
                spark.sparkContext.setCheckpointDir(folder)
            learned = als.fit(spark.createDataFrame(taken)).itemFactors.toPandas()
        item_factors[learned["id"].to_numpy() - 1] = np.stack(learned["features"])
        return item_factors

    def ridge(self, length: int) -> float:
        """Grows with the history."""
        return self.regularisation * length
