"""Pooling against closed forms."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.pooling import pool_rows, pooled_features, wide_dtype

TOKENS = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
IMAGES = np.arange(2 * 3 * 2 * 5, dtype=np.float32).reshape(2, 3, 2, 5)


@pytest.mark.parametrize(
    ("rows", "pooling", "first"),
    [
        (TOKENS, "mean", [4, 5, 6, 7]),
        (TOKENS, "max", [8, 9, 10, 11]),
        (TOKENS, "cls", [0, 1, 2, 3]),
        (TOKENS, "last", [8, 9, 10, 11]),
        (TOKENS, "flatten", list(range(12))),
        (IMAGES, "mean", [4.5, 14.5, 24.5]),
        (IMAGES, "max", [9, 19, 29]),
        (IMAGES, "flatten", list(range(30))),
        (TOKENS[:, 0], "mean", [0, 1, 2, 3]),
        (TOKENS[:, 0], "none", [0, 1, 2, 3]),
        (IMAGES[..., None], "flatten", list(range(30))),
    ],
)
def test_pooling__gives_the_closed_form(rows: np.ndarray, pooling: str, first: list[float]) -> None:
    shape = "nchw" if rows.ndim == 4 else None
    pooled = pool_rows(rows, pooling, shape=shape)
    assert pooled[0].tolist() == first
    assert pooled.shape == (2, pooled_features(rows.shape[1:], pooling, shape=shape))
    assert pooled.dtype == np.float32
    assert pooled.flags.c_contiguous


def test_channels_last__pools_over_pixels() -> None:
    last = np.moveaxis(IMAGES, 1, 3)
    for pooling in ("mean", "max"):
        first = pool_rows(IMAGES, pooling, shape="nchw")
        np.testing.assert_array_equal(pool_rows(last, pooling, shape="nhwc"), first)
    assert pooled_features(last.shape[1:], "mean", shape="nhwc") == 3


@pytest.mark.parametrize("of_point", [(3, 2, 5), (8, 8, 16), (16, 8, 8), (8, 8, 8), (1, 7, 12), (7, 12, 1)])
def test_maps__without_a_shape_are_never_guessed(of_point: tuple[int, ...]) -> None:
    ways = f"nchw for {of_point[0]} channels of .*nhwc for {of_point[2]} of"
    for pooling in ("mean", "max"):
        with pytest.raises(DataError, match=rf"which may be channels first or last. Write shape: {ways}"):
            pool_rows(np.zeros((2, *of_point)), pooling)
    assert pool_rows(np.zeros((2, *of_point)), "flatten").shape == (2, np.prod(of_point))


def test_maps_of_one_pixel__have_their_channels_where_the_features_are() -> None:
    channels = np.arange(10.0).reshape(2, 5)
    for rows in (channels[:, :, None, None], channels[:, None, None, :]):
        np.testing.assert_array_equal(pool_rows(rows, "mean"), channels)


def test_hidden_states__behind_an_axis_of_length_1_become_no_feature() -> None:
    with pytest.raises(DataError, match=r"shape: ntd for 3 tokens of 4 features"):
        pool_rows(TOKENS[:, None], "mean")
    with pytest.raises(DataError, match=r"got a 4-D array, .* with shape: ntd, expected 3 dimensions"):
        pool_rows(IMAGES, "mean", shape="ntd")


def test_cls_and_mean__stand_side_by_side() -> None:
    assert pool_rows(TOKENS, "cls+mean")[0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert pool_rows(TOKENS, "cls+mean", prefix_tokens=1)[0].tolist() == [0, 1, 2, 3, 6, 7, 8, 9]
    assert pooled_features(TOKENS.shape[1:], "cls+mean") == 8


@pytest.mark.parametrize("pooling", ["max", "cls", "last", "flatten"])
def test_half_precision__stays_where_nothing_is_summed(pooling: str) -> None:
    assert pool_rows(TOKENS.astype(">f2"), pooling).dtype == np.dtype("=f2")
    np.testing.assert_array_equal(pool_rows(TOKENS.astype(">f2"), pooling), pool_rows(TOKENS, pooling))


def test_shape__that_the_array_does_not_have_is_refused() -> None:
    assert pooled_features((4,), "mean", shape="nhwc") == 4  # rows already
    with pytest.raises(DataError, match=r"got a 3-D array, .* with shape: nchw, expected 4 dimensions. Correct shape"):
        pool_rows(TOKENS, "mean", shape="nchw")


def test_half_precision__is_summed_without_overflow() -> None:
    rows = np.full((1, 1000, 1), 60_000, np.float16)
    assert pool_rows(rows, "mean").tolist() == [[float(np.float16(60_000))]]


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("f2", "f4"), (">f4", "=f4"), ("f8", "f8"), ("i2", "f4"), ("u2", "f4"), ("i4", "f8"), ("?", "f4")],
)
def test_wide_dtype__holds_every_value(dtype: str, wide: str) -> None:
    assert wide_dtype(np.dtype(dtype)) == np.dtype(wide)


@pytest.mark.parametrize(
    ("shape", "pooling", "message"),
    [
        ((3, 4), "none", r"got a 3-D array, each point \(3, 4\), with pool: none, .*Write pool: mean or max or cls"),
        ((3, 2, 5), "cls", r"got a 4-D array.*Write pool: mean or max or flatten"),
        ((3, 2, 5, 7), "mean", r"got a 5-D array.*Write pool: flatten"),
        ((), "none", r"got a 1-D array.*Store one row a point"),
        ((3, 4), "median", r"with pool: median"),
    ],
)
def test_pooling__that_does_not_fit_is_refused(shape: tuple[int, ...], pooling: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        pool_rows(np.zeros((2, *shape), np.float32), pooling)
    assert caught.value.reason == "wrong_shape"
