"""Images of a dataset: the same from files, tables and arrays; broken ones and bombs told with their names."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from lfm_tasks.catalog import read_catalog
from lfm_tasks.catalog.datasets import Images
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files import encoded_images
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.opening import read_dataset
from lfm_tasks.sources.raw_images import read_images
from lfm_tasks.sources.raw_inputs import RawInputs, RawRows

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 5, 6, 3), dtype=np.uint8)
IDS = [f"{'even' if number % 2 == 0 else 'odd'}/{number}" for number in range(7)]
LABELS = ["even", "odd", "even", "odd", "even", "odd", "even"]


def png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def read(folder: Path, path: str, memory: DigestMemory | None = None, **keys: Any) -> RawRows:
    return read_images("photos", Images(path=path, **keys), folder, memory or DigestMemory())


def write_files(folder: Path) -> RawRows:
    for number, name in enumerate(IDS):
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / f"{name}.png").write_bytes(png(PIXELS[number]))
    return read(folder, "images/*/*.png", label="folder")


def column(kind: str) -> pa.Array:
    encoded = [png(pixels) for pixels in PIXELS]
    if kind == "bytes":
        return pa.array(encoded, pa.binary())
    values = [{"bytes": content, "path": f"{number}.png"} for number, content in enumerate(encoded)]
    return pa.array(values, pa.struct({"bytes": pa.binary(), "path": pa.string()}))


def table(kind: str) -> pa.Table:
    return pa.table({"image": column(kind), "id": IDS, "label": LABELS})


def write_parquet(folder: Path) -> RawRows:
    pyarrow.parquet.write_table(table("struct"), folder / "t.parquet", row_group_size=3)
    return read(folder, "t.parquet", id="id", label="label")


def write_bytes(folder: Path) -> RawRows:
    pyarrow.parquet.write_table(table("bytes").slice(0, 3), folder / "t-0.parquet", row_group_size=2)
    pyarrow.parquet.write_table(table("bytes").slice(3), folder / "t-1.parquet", row_group_size=2)
    return read(folder, "t-*.parquet", id="id", label="label")


def write_saved(folder: Path) -> RawRows:
    (folder / "saved").mkdir()
    whole = table("struct")
    with pa.OSFile(str(folder / "saved" / "0.arrow"), "wb") as file, pa.ipc.new_stream(file, whole.schema) as writer:
        writer.write_table(whole, max_chunksize=2)
    (folder / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "0.arrow"}]}))
    return read(folder, "saved", id="id", label="label")


def write_npy(folder: Path) -> RawRows:
    np.save(folder / "pixels.npy", PIXELS)
    np.save(folder / "ids.npy", np.array(IDS))
    np.save(folder / "labels.npy", np.array(LABELS))
    return read(folder, "pixels.npy", id={"path": "ids.npy"}, label={"path": "labels.npy"})


def write_npz(folder: Path) -> RawRows:
    np.savez_compressed(folder / "pixels.npz", pixels=PIXELS, ids=np.array(IDS), labels=np.array(LABELS))
    keys = {name: {"path": "pixels.npz", "key": f"{name}s"} for name in ("id", "label")}
    return read(folder, "pixels.npz", image="pixels", **keys)


WRITE = [write_files, write_parquet, write_bytes, write_saved, write_npy, write_npz]


@pytest.mark.parametrize("write", WRITE)
def test_images__are_the_same_from_files_tables_and_arrays(write: Any, tmp_path: Path) -> None:
    rows = write(tmp_path)

    inputs = rows.inputs
    assert isinstance(inputs, RawInputs)
    assert (inputs.kind, len(inputs), inputs.lengths().tolist()) == ("images", 7, [0] * 7)
    names = [name.removesuffix(".png") for name in rows.ids.tolist()]
    order = [IDS.index(name) for name in names]
    assert sorted(order) == list(range(7))
    assert rows.labels is not None
    assert rows.labels.tolist() == [LABELS[index] for index in order]
    chosen = np.array([6, 0, 3, 3, 5])
    for image, row in zip(inputs.read(chosen), chosen, strict=True):
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), PIXELS[order[row]])
    assert len(inputs.digest()) == 64
    assert (
        inputs.digest()
        == write(tmp_path / "again" if (tmp_path / "again").mkdir() is None else tmp_path).inputs.digest()
    )


def test_files__are_named_by_their_paths_below_the_pattern(tmp_path: Path) -> None:
    for name in ("b/deep/2.png", "a/1.png", "a/.hidden.png", "a/notes.txt", "c/3.jpg"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(PIXELS[0]))
    rows = read(tmp_path, "images/**/*.png", label="folder")
    assert rows.ids.tolist() == ["a/1.png", "b/deep/2.png"]
    assert rows.labels is not None
    assert rows.labels.tolist() == ["a", "deep"]
    flat = read(tmp_path, "images/a/*.png", label="folder")
    assert flat.labels is not None
    assert (flat.ids.tolist(), flat.labels.tolist()) == (["1.png"], ["a"])


def test_digest__follows_content_and_order(tmp_path: Path) -> None:
    first = write_files(tmp_path).inputs.digest()
    path = tmp_path / "images" / "even" / "0.png"
    path.write_bytes(png(PIXELS[0] ^ 1))
    second = read(tmp_path, "images/*/*.png").inputs.digest()
    path.rename(path.with_name("9.png"))
    assert len({first, second, read(tmp_path, "images/*/*.png").inputs.digest()}) == 3


def test_image_that_changes_while_it_is_needed__is_told(tmp_path: Path) -> None:
    inputs = write_files(tmp_path).inputs
    inputs.digest()
    (tmp_path / "images" / "even" / "0.png").write_bytes(png(PIXELS[1]))
    with pytest.raises(DataError, match=r"even/0\.png: got another image than when the run began"):
        inputs.read(np.array([0]))


def test_modes__become_rgb_and_exif_turns(tmp_path: Path) -> None:
    gray, palette = Image.fromarray(PIXELS[0, :, :, 0]), Image.fromarray(PIXELS[0]).convert("P")
    gray.save(tmp_path / "gray.png")
    palette.save(tmp_path / "palette.png")
    Image.fromarray(PIXELS[0]).convert("RGBA").save(tmp_path / "rgba.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(PIXELS[0]).save(tmp_path / "turned.png", exif=turned)
    images = dict(
        zip(("gray", "palette", "rgba", "turned"), read(tmp_path, "*.png").inputs.read(np.arange(4)), strict=True)
    )
    assert {image.mode for image in images.values()} == {"RGB"}
    np.testing.assert_array_equal(np.asarray(images["gray"])[:, :, 1], PIXELS[0, :, :, 0])
    np.testing.assert_array_equal(np.asarray(images["rgba"]), PIXELS[0])
    np.testing.assert_array_equal(np.asarray(images["turned"]), np.rot90(PIXELS[0], -1))


def test_gray_arrays__become_rgb(tmp_path: Path) -> None:
    for name, shape in (("flat", (7, 5, 6)), ("one", (7, 5, 6, 1))):
        np.save(tmp_path / f"{name}.npy", PIXELS[:, :, :, 0].reshape(shape))
        [image] = read(tmp_path, f"{name}.npy", id="positional").inputs.read(np.array([2]))
        np.testing.assert_array_equal(np.asarray(image)[:, :, 2], PIXELS[2, :, :, 0])


def deep(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (4, 4)).save(file, "TIFF")
    return file.getvalue()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


BROKEN = {
    "cut off": (png(PIXELS[0])[:-40], r"x\.png: got an image that cannot be decoded \(.*\), expected a whole one"),
    "text": (b"hello", r"images/x\.png: got no image \(it begins with b'hello'\), expected one of PNG, JPEG"),
    "empty": (b"", r"x\.png: got an empty file, expected an image\. Copy the file again, or leave it out"),
    "damaged header": (
        flipped(png(PIXELS[0]), 18),
        r"x\.png: got a PNG image whose header is damaged, expected a whole",
    ),
    "damaged pixels": (flipped(png(PIXELS[0]), 60), r"x\.png: got an image that cannot be decoded \("),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "got no image"),
    "16 bits": (png(np.zeros((4, 4), np.uint16)), r"x\.png: got pixels of more than 8 bits \(mode I;16\)"),
    "floats": (deep("F"), r"x\.png: got pixels of more than 8 bits \(mode F\)"),
    "bomb": (png(np.zeros((64, 64), np.uint8)), r"x\.png: got 64 × 64 pixels, expected at most 4,000"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_image__is_told_with_its_name(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, message = BROKEN[case]
    monkeypatch.setattr(encoded_images, "MAX_PIXELS", 4000)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(content)
    inputs = read(tmp_path, "images/*.png").inputs
    with pytest.raises(DataError, match=message) as caught:
        inputs.read(np.array([0]))
    assert caught.value.reason == "bad_inputs"
    os.utime(tmp_path / "images" / "x.png", (1, 1))
    memory = DigestMemory()
    for _ in range(2):  # it is not taken for a known one the second time
        with pytest.raises(DataError, match=r"images/x\.png: got "):
            read_images("x", Images(path="images/*.png"), tmp_path, memory).inputs.digest()


def test_damaged_image__is_told_by_its_dataset_before_any_model(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(flipped(png(PIXELS[0]), 60))
    catalog = tmp_path / "data_catalog.yaml"
    catalog.write_text(
        "version: 1\ndatasets: {photos: {images: {path: 'images/*.png'}}}\n"
        "models: {net: {timm: {path: net, dataset: photos}}}\n"
    )
    with pytest.raises(DataError, match=r"images/x\.png: got an image that cannot be decoded"):
        read_dataset("photos", read_catalog(catalog))


def test_bomb_beyond_pillows_own_limit__is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_bytes(png(np.zeros((64, 64), np.uint8)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"x\.png: got more pixels, expected at most 89,478,485"):
        read(tmp_path, "*.png").inputs.read(np.array([0]))


BAD = {
    "no file": ("images/*.png", {}, "missing_source", r"images/\*\.png: got no file that matches, and there is"),
    "one file": ("x.png", {"id": "positional"}, "missing_source", r"x\.png: got one file that is no table"),
    "no column": ("t.parquet", {"id": "name"}, "missing_source", r"t\.parquet: got no column 'name'"),
    "no image": ("t.parquet", {"id": "id", "image": "img"}, "missing_source", r"got no column 'img'; did you mean"),
    "floats": ("f.npy", {"id": "positional"}, "bad_inputs", r"f\.npy: got float64 of shape \(3, 4, 4\), expected"),
    "four": ("c.npy", {"id": "positional"}, "bad_inputs", r"c\.npy: got uint8 of shape \(3, 3, 4, 4\), expected uint8"),
    "few ids": ("p.npy", {"id": {"path": "ids.npy"}}, "bad_ids", r"ids\.npy: got 2 ids and 3 rows, expected one for"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_images_that_cannot_be_meant__are_refused(case: str, tmp_path: Path) -> None:
    path, keys, reason, message = BAD[case]
    (tmp_path / "x.png").write_bytes(png(PIXELS[0]))
    pyarrow.parquet.write_table(table("struct"), tmp_path / "t.parquet")
    np.save(tmp_path / "p.npy", np.zeros((3, 4, 4), np.uint8))
    np.save(tmp_path / "f.npy", np.zeros((3, 4, 4)))
    np.save(tmp_path / "c.npy", np.zeros((3, 3, 4, 4), np.uint8))
    np.save(tmp_path / "ids.npy", np.array(["a", "b"]))
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, path, **keys)
    assert caught.value.reason == reason


def test_rows_without_bytes__are_told(tmp_path: Path) -> None:
    values = [{"bytes": png(PIXELS[0]), "path": None}, {"bytes": None, "path": "/home/x/1.png"}, None]
    image = pa.array(values, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pyarrow.parquet.write_table(pa.table({"image": image}), tmp_path / "t.parquet")
    inputs = read(tmp_path, "t.parquet", id="positional").inputs
    with pytest.raises(
        DataError, match=r"t\.parquet#image: row 1 \(counted from 0\): got the path '/home/x/1.png' with"
    ):
        inputs.read(np.array([1]))
    with pytest.raises(DataError, match=r"t\.parquet#image: row 2 \(counted from 0\): got nothing \(null\), expected"):
        inputs.read(np.array([2]))
