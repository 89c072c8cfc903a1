"""The page of a Prefect artifact and its picture."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
from PIL import Image

from lfm_tasks.published.artifact import MAX_BYTES, artifact_page, escape_markdown, matrix_png
from lfm_tasks.published.atlas import Atlas


def test_picture__is_a_png_of_the_values() -> None:
    values = np.array([[1.0, 0.0], [np.nan, 0.5]])

    image = Image.open(io.BytesIO(matrix_png(values)))
    image.load()

    assert image.size == (256, 256)
    corners = [image.convert("RGB").getpixel(place) for place in ((0, 0), (255, 0), (0, 255), (255, 255))]
    assert corners == [(253, 231, 37), (68, 1, 84), (190, 190, 190), (33, 144, 141)]


def test_picture__of_many_models_stays_small() -> None:
    values = np.random.default_rng(0).random((700, 700))
    values[:, :200] = np.nan

    picture = matrix_png(values)

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    assert image.size == (256, 256)
    assert image.getpixel((10, 10)) == (190, 190, 190)
    assert len(picture) < 70_000


def test_page__has_checks_a_picture_and_the_nearest(small: Atlas) -> None:
    page = artifact_page(small)

    assert "| spaces | look | 8 of 4 models; 1 failed (not_finite) |" in page
    assert "| pairs | look | 56 directed, 24 without a score |" in page
    assert re.search(r"\| model0 \| model2 \| [a-z ]+ \| 0\.\d{3} \| 0\.\d{3} \| model0/\S+, model2/\S+ \|", page)
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (256, 256)
    assert len(page.encode()) < 20_000


def test_page__shows_names_as_text(small: Atlas) -> None:
    attack = "</td><script>alert(1)</script>|[x](http://evil) www.evil.com _a_ `b`"
    scores = small.scores.load().copy()
    for side in ("source", "target"):
        models = np.where(scores[f"{side}_model"].values == "model2", attack, scores[f"{side}_model"].values)
        scores = scores.assign_coords({f"{side}_model": (side, models)})

    page = artifact_page(replace(small, scores=scores))

    assert escape_markdown(attack) in page
    assert not re.search(r"<(?!img )|\[x\]|http:|www\.|`", page)


def test_page__is_never_too_large(small: Atlas) -> None:
    n_models = 150
    rows = np.zeros(n_models, dtype=int)
    scores = small.scores.load().isel(source=rows, target=rows)
    names = np.array([f"{index:04}{'&' * 100}" for index in range(n_models)], dtype=object)
    for side in ("source", "target"):
        scores = scores.assign_coords({side: names, f"{side}_model": (side, names)})

    page = artifact_page(replace(small, scores=scores))

    assert len(page.encode()) < MAX_BYTES
    assert page.endswith("There is more in the report.\n")
