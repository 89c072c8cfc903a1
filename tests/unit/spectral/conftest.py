"""Spaces with a known answer: small clouds, and two views of the digits with permuted rows and unequal n."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.spectral.maps.decoding import scaled_rows
from lfm_tasks.spectral.maps.refinement import map_of_points

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture
def cloud():
    """Return 300 points in 8 dimensions, in three clusters that touch."""
    generator = np.random.default_rng(3)
    centers = generator.standard_normal((3, 8))
    return centers[generator.integers(0, 3, 300)] + generator.standard_normal((300, 8))


@pytest.fixture(scope="session")
def golden_spaces():
    """Return X (500, 16), the related Y (500, 24) and the unrelated Z (500, 24) of the golden values."""
    with np.load(GOLDEN / "fixture_LFM.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture(scope="session")
def digit_views():
    """Return source (500, 64), target (440, 80) and, for each target row, its source row: rows permuted, n unequal."""
    generator = np.random.default_rng(11)
    source = load_digits().data[:500] / 16
    rotation = np.linalg.qr(generator.standard_normal((64, 64)))[0]
    embedding = np.linalg.qr(generator.standard_normal((80, 80)))[0][:64]
    view = np.tanh(source @ rotation) @ embedding
    source_rows = generator.permutation(500)[:440]
    target = view[source_rows] + 0.02 * generator.standard_normal((440, 80))
    return source, target, source_rows


@pytest.fixture(scope="session")
def views(digit_views):
    """Return both bases, the source row of every target row, and the map that all pairs give."""
    source_rows, target_rows, partner = digit_views
    source, target = spectral_space(source_rows, n_eigenpairs=30), spectral_space(target_rows, n_eigenpairs=30)
    truth = map_of_points(partner, scaled_rows(source.basis, 30), scaled_rows(target.basis, 30))
    return source.basis, target.basis, partner, truth
