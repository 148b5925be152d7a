"""Array libraries: what NumPy, torch and CuPy spell differently, so that the rest is written once.

The index on a GPU calls `xp`, the library's own namespace, and uses only what all three spell alike and do alike; what
they don't is here. CuPy has not been run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator

import numpy as np

GPU_BYTES, CPU_BYTES = 1 << 30, 64 << 20  # intermediate arrays of one block of pairs or queries


class NoGpuError(RuntimeError):
    """No array library that sees a GPU; the message says which were tried and what to install."""


class ArrayLibrary:
    """An array library on one device.

    Args:
        name: "numpy", "torch" or "cupy".
        device: of torch, "cpu" or "cuda".

    Attributes:
        xp: its namespace.
        work_bytes: what a block of pairs or of queries may take there beside the index and the weights.

    Raises:
        ValueError: there is no such library.
        ImportError: it is missing; the message has the command that installs it.
    """

    def __init__(self, name: str, device: str = "cpu"):
        if name not in ("numpy", "torch", "cupy"):
            raise ValueError(f"Unknown array library {name!r}; there are numpy, torch, cupy.")
        try:
            self.xp = importlib.import_module(name)
        except ImportError as error:
            package = "cupy-cuda12x" if name == "cupy" else name
            raise ImportError(f"{name} is missing: pip install {package}") from error
        self.name, self.device = name, "cuda" if name == "cupy" else device
        self.work_bytes = CPU_BYTES if self.device == "cpu" else GPU_BYTES

    def __repr__(self) -> str:
        return f"{self.name} {self.xp.__version__} on {self.device}"

    def put(self, array):
        """A NumPy array as an array of the library, on the device."""
        if self.name == "torch":
            return self.xp.tensor(np.ascontiguousarray(array), device=self.device)
        return self.xp.asarray(array)

    def get(self, array) -> np.ndarray:
        """An array of the library as a NumPy array; waits until it is computed."""
        if self.name == "torch":
            return array.cpu().numpy()
        return self.xp.asnumpy(array) if self.name == "cupy" else array

    def range(self, n: int):
        """0, 1 ... n - 1 as int64, on the device."""
        place = {"device": self.device} if self.name == "torch" else {}
        return self.xp.arange(n, dtype=self.xp.int64, **place)

    def zeros(self, shape: int | tuple[int, ...]):
        """Zeros as float32, on the device."""
        place = {"device": self.device} if self.name == "torch" else {}
        return self.xp.zeros(shape, dtype=self.xp.float32, **place)

    def empty(self, shape: int | tuple[int, ...]):
        """Room for float32 values that are all going to be written, on the device."""
        place = {"device": self.device} if self.name == "torch" else {}
        return self.xp.empty(shape, dtype=self.xp.float32, **place)

    def best(self, values, k: int):
        """The k highest values of each row, descending: (rows, n) -> (rows, k), 1 <= k <= n."""
        if self.name == "torch":
            return self.xp.topk(values, k, dim=1).values
        rest = values.shape[1] - k
        return self.xp.sort(self.xp.partition(values, rest, axis=1)[:, rest:], axis=1)[:, ::-1]

    @contextlib.contextmanager
    def full_precision(self) -> Iterator[None]:
        """Within it, float32 matrix products round as float32 does.

        TF32 and bfloat16 keep 10 and 7 bits of a factor, which moves scores by more than 1e-5. Both libraries leave
        them off unless asked. torch is asked by a global setting, which is put back afterwards.

        Raises:
            ValueError: CuPy is asked, by an environment variable.
        """
        if self.name == "torch":
            before = self.xp.get_float32_matmul_precision()
            self.xp.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                self.xp.set_float32_matmul_precision(before)
            return
        if self.name == "cupy" and os.environ.get("CUPY_TF32", "0") != "0":
            raise ValueError("CUPY_TF32 makes CuPy round scores to 10 bits; unset it for an index.")
        yield


def gpu_library() -> ArrayLibrary:
    """torch, or else CuPy, whichever is installed and sees a GPU.

    Raises:
        NoGpuError: neither is and does.
    """
    found = []
    for name in ("torch", "cupy"):
        try:
            library = ArrayLibrary(name, "cuda")
        except ImportError:
            found.append(f"{name} is not installed")
            continue
        if library.xp.cuda.is_available():
            return library
        found.append(f"{name} {library.xp.__version__} sees no GPU")
    raise NoGpuError(
        f"The index can't go to a GPU: {', '.join(found)}; on a machine with an NVIDIA GPU and its "
        "driver, pip install torch (a CUDA build) or pip install cupy-cuda12x."
    )
