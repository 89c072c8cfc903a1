"""Arrays become PNG files that other programs read; texts their first words."""

import io

import numpy as np
import pytest

from lfm_tasks.stages.previews.pictures import (
    MOST_CHARACTERS,
    MOST_PIXELS,
    as_pictures,
    first_words,
    in_bytes,
    png,
)


@pytest.mark.parametrize("shape", [(8, 8), (8, 5, 3), (1, 1), (90, 40), (64, 200, 3), (16, 16, 1)])
def test_png__is_read_by_another_program(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)

    read = np.asarray(image.open(io.BytesIO(png(picture))))

    assert max(read.shape[:2]) == min(max(shape[:2]), MOST_PIXELS)
    if max(shape[:2]) <= MOST_PIXELS:
        np.testing.assert_array_equal(read.reshape(picture.shape), picture)


def test_png__has_no_fourth_channel_and_the_same_bytes_each_time() -> None:
    picture = np.full((4, 4, 4), 7, dtype=np.uint8)

    assert png(picture) == png(picture[..., :3]) == png(picture.copy())


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 8, 8), (5, 8, 8)), ((5, 3, 8, 9), (5, 8, 9, 3)), ((5, 8, 9, 1), (5, 8, 9, 1)), ((5, 7, 8, 9), None)],
)
def test_as_pictures__knows_the_axes(shape: tuple[int, ...], expected: tuple[int, ...] | None) -> None:
    found = as_pictures(np.zeros(shape))

    assert (None if found is None else found.shape) == expected
    assert as_pictures(np.zeros((5, 64))) is None


def test_in_bytes__spans_black_to_white_and_leaves_bytes_alone() -> None:
    values = np.array([[[-1.0, 0.0], [1.0, np.nan]]])

    assert in_bytes(values).tolist() == [[[0, 128], [255, 128]]]
    assert in_bytes(np.zeros((1, 2, 2))).max() == 0
    raw = np.array([[[3]]], dtype=np.uint8)
    assert in_bytes(raw) is raw


def test_first_words__are_one_line_of_bounded_length() -> None:
    assert first_words(" a\n b\t c ") == "a b c"
    assert len(first_words("word " * 10_000)) <= MOST_CHARACTERS
    assert first_words("word " * 10_000).endswith("…")
