"""Five pairs of real layers, 500 rows each, that other programs were run on."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def real_pairs() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parents[2] / "golden" / "real_pairs.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}
