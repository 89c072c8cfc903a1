"""Pictures of spaces."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.transfer.evaluation import tsne


def blobs(n_features=6):
    generator = np.random.default_rng(0)
    centers = 6 * generator.standard_normal((3, n_features))
    return centers[np.arange(90) // 30] + generator.standard_normal((90, n_features))


def test_picture__keeps_the_nearest_in_their_group_and_is_the_same_every_time():
    rows = blobs()

    drawn = tsne(rows, perplexity=10.0)

    distances = np.linalg.norm(drawn[:, None] - drawn, axis=2) + np.diag(np.full(90, np.inf))
    assert (np.arange(90) // 30 == distances.argmin(axis=1) // 30).mean() > 0.95
    assert drawn.dtype == np.float32
    assert tsne(rows, perplexity=10.0).tobytes() == drawn.tobytes()
    assert tsne(rows.astype(np.float32), perplexity=10.0).shape == (90, 2)


def test_angular_picture__does_not_see_the_length_of_rows():
    rows = blobs()
    lengths = np.random.default_rng(1).choice([0.5, 1.0, 4.0], (90, 1))

    np.testing.assert_array_equal(tsne(rows * lengths, perplexity=5.0), tsne(rows, perplexity=5.0))
    assert (tsne(rows * lengths, perplexity=5.0, metric="euclidean") != tsne(rows, perplexity=5.0)).any()


def test_space_of_one_feature__has_a_picture():
    assert np.isfinite(tsne(blobs(1), perplexity=5.0, metric="euclidean")).all()


def test_too_few_points__are_refused():
    message = r"found 30 points, t-SNE with perplexity 30 needs more of them: lower atlas.embeddings.perplexity"
    with pytest.raises(DataError, match=message) as caught:
        tsne(blobs()[:30])
    assert caught.value.reason == "too_few_points"
