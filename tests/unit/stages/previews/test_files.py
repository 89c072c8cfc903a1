"""Previews of real files: pictures and texts as people have them, hostile ones included; only small copies leave."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.opening import DatasetRows, read_dataset
from lfm_tasks.sources.raw_inputs import TokenPoints
from lfm_tasks.stages.previews.pictures import MOST_CHARACTERS, MOST_PIXELS, first_words
from lfm_tasks.stages.previews.stage import _kind, _shown
from lfm_tasks.stores.atlas.files import read_groups

HOSTILE = ["<img src=x onerror=alert(1)>", "\u202egnp.evil", "a'b\"c&d", "=cmd()"]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


def color_of(number: int) -> tuple[int, int, int]:
    return (number * 4 % 256, 40, 200)


def write_pictures(folder: Path, names: list[str]) -> None:
    """Write a picture of one color each: of three kinds of files and of many sizes, one larger than any screen."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        size = (2000, 900) if number == 0 else (3 + number, 40)
        picture = Image.new("RGB", size, color_of(number))
        kind = ("png", "jpg", "webp")[number % 3]
        secret = PngImagePlugin.PngInfo()
        secret.add_text("where", "at home")
        more: dict[str, Any] = {"pnginfo": secret, "compress_level": 1} if kind == "png" else {"quality": 95}
        picture.save(folder / f"{name}.{kind}", **more)


def points(n: int = 40) -> list[str]:
    return sorted([*HOSTILE, *(f"p{number:03}" for number in range(n - len(HOSTILE)))])


def zoo_of(ids: list[str], related_spaces: Callable[..., Any]) -> dict[str, Any]:
    """Return models whose points are called ``ids``."""
    order = {name: place for place, name in enumerate(f"p{n:04}" for n in range(len(ids)))}
    found = {}
    for model, (layers, names) in related_spaces(2, n_points=len(ids)).items():
        numbers = {name: place for place, name in enumerate(np.unique(names))} if set(names) - {*order} else order
        found[model] = (layers, np.array([ids[numbers[str(name)]] for name in names]))
    return found


def catalog_of(folder: Path, dataset: dict[str, Any]) -> Path:
    """Write a catalog of one model that has a dataset; only the dataset is read."""
    model = {"activations": {"path": "m.npz", "key": "{layer}", "dataset": "probe"}}
    (folder / "data_catalog.yaml").write_text(
        json.dumps({"version": 1, "datasets": {"probe": dataset}, "models": {"m": model}})
    )
    return folder / "data_catalog.yaml"


def read(folder: Path, dataset: dict[str, Any]) -> DatasetRows:
    return read_dataset("probe", read_catalog(catalog_of(folder, dataset)))


def test_previews__of_image_files_are_small_copies_beside_names_that_stay_text(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Any
) -> None:
    ids = points()
    write_pictures(tmp_path / "thumbs", ids)
    models = zoo_of(ids, related_spaces)
    folder = write_zoo(
        tmp_path, models, {"previews": {"path": "thumbs/*"}}, measures=["overlap"], collection=None, previews=True
    )

    build(folder)

    group = read_groups(folder / "atlas")["previews/probe"]
    assert group.attrs["kind"] == "image"
    for name, encoded in zip(group["point"].values, group["preview"].values, strict=True):
        content = base64.b64decode(str(encoded))
        shown = Image.open(io.BytesIO(content))
        assert (shown.format, max(shown.size) <= MOST_PIXELS) == ("PNG", True)
        pixel = np.array(shown.convert("RGB")).reshape(-1, 3).astype(int)
        assert np.abs(pixel - color_of(ids.index(str(name)))).max() <= 6  # JPEG and WebP round
        assert b"at home" not in content
    page = (folder / "atlas" / "report.html").read_text()
    assert "<img" not in page.split("<main>")[1].split("<script")[0]
    assert 'id="previews"' in page


IMAGES = {
    "no picture": (lambda file: file.write_bytes(SVG), "p001.png: got no image (it begins with b'<svg"),
    "a page": (lambda file: file.write_text("<html><script>alert(1)</script>"), "p001.png: got no image"),
    "cut off": (
        lambda file: file.write_bytes(file.read_bytes()[:40]),
        "p001.png: got a PNG image whose header is damaged",
    ),
    "empty": (lambda file: file.write_bytes(b""), "p001.png: got an empty file"),
    "missing": (lambda file: file.unlink(), "got 0 files called 'p001' (1 of 4 ids are so)"),
    "twice": (lambda file: file.with_suffix(".gif").write_bytes(file.read_bytes()), "got 2 files called 'p001'"),
    "a link that leads out": (
        lambda file: (file.unlink(), file.symlink_to("/etc/passwd")),
        "got the link 'p001.png', which leads out",
    ),
}


@pytest.mark.parametrize("case", IMAGES)
def test_image_file__that_cannot_be_shown_is_named_before_any_work(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "zoo"
    (folder / "thumbs").mkdir(parents=True)
    ids = [f"p{number:03}" for number in range(4)]
    np.save(folder / "ids.npy", np.array(ids))
    for name in ids:
        Image.new("RGB", (5, 5), (1, 2, 3)).save(folder / "thumbs" / f"{name}.png")
    spoil, message = IMAGES[case]
    dataset = {"ids": {"path": "ids.npy"}, "previews": {"path": "thumbs/*.*"}}
    assert len(read(folder, dataset).previews) == 4  # type: ignore[arg-type]

    spoil(folder / "thumbs" / "p001.png")

    with pytest.raises(DataError) as raised:
        read(folder, dataset)
    assert message in str(raised.value)


def test_image_file__is_the_one_of_its_id_in_any_order_and_with_folders(tmp_path: Path) -> None:
    ids = ["even/0", "odd/1.png", "p2"]
    np.save(tmp_path / "ids.npy", np.array(ids[::-1]))
    for number, name in enumerate(ids):
        path = tmp_path / "thumbs" / (name if name.endswith(".png") else f"{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(path)

    rows = read(tmp_path, {"ids": {"path": "ids.npy"}, "previews": {"path": "thumbs/**/*.png"}})

    shown = [base64.b64decode(one) for one in _shown(rows, np.arange(3))]
    assert [np.array(Image.open(io.BytesIO(one)))[0, 0, 0] for one in shown] == [2, 1, 0]


def test_images_of_a_dataset__are_shown_too(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", ["a", "b"])
    rows = read(tmp_path, {"images": {"path": "photos/*.*"}})

    first, second = _shown(rows, np.array([1, 0]))

    assert _kind(rows) == "image"
    assert max(Image.open(io.BytesIO(base64.b64decode(second))).size) == MOST_PIXELS
    assert len(first) < 1000


TEXTS = ["<script>alert(1)</script>", "\u202egnihtyna \u2066x", "word " * 10**6, "a\x00b\x1b[31m", "é" * 300]


def test_texts__are_cut_to_their_first_words_and_kept_as_they_are(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"t{number}", "text": text}) for number, text in enumerate(TEXTS)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    rows = read(tmp_path, {"texts": {"path": "prompts.jsonl", "id": "id"}})

    shown = list(_shown(rows, np.arange(len(TEXTS))))

    by_id = dict(zip(rows.ids.tolist(), shown, strict=True))
    assert _kind(rows) == "text"
    assert [by_id[f"t{number}"] for number in range(len(TEXTS))] == [first_words(text) for text in TEXTS]
    assert max(map(len, shown)) <= MOST_CHARACTERS
    assert by_id["t0"] == TEXTS[0]


class Texts:
    """Texts as a checkpoint's dataset has them."""

    kind = "texts"
    memory_bytes = 0

    def __len__(self) -> int:
        return 2

    def read(self, rows: np.ndarray) -> list[str]:
        return [["first <b>text</b>", "second"][row] for row in rows]

    def digest(self) -> str:
        return "0" * 64

    def lengths(self) -> np.ndarray:
        return np.array([5, 6])


def test_tokens__are_shown_by_the_text_that_they_stand_in() -> None:
    tokens = TokenPoints(Texts(), np.array(["a", "b"]), np.array([2, 3]), "1" * 64, "model")

    shown = list(_shown(DatasetRows(tokens.ids, inputs=tokens), np.array([0, 1, 4])))

    assert shown == ["first <b>text</b>", "first <b>text</b>", "second"]
