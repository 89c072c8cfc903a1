"""Every catalog line of docs/readers.md reads a file of the layout that it stands for."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import save_file
from upath import UPath

from lfm_tasks.catalog import read_catalog
from lfm_tasks.sources import open_source, read_dataset
from lfm_tasks.sources.files.formats import ENTRY_POINTS, FORMATS
from lfm_tasks.sources.files.stored_array import StoredArray

PAGE = (Path(__file__).parents[2] / "docs/readers.md").read_text(encoding="utf-8")
LINES = [line for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
N = 6
generator = np.random.default_rng(0)
ROWS = generator.standard_normal((N, 5)).astype(np.float32)
TOKENS = generator.standard_normal((N, 4, 5)).astype(np.float32)
IMAGES = generator.standard_normal((N, 2, 2, 5)).astype(np.float32)
IDS = np.array([f"id{number}" for number in range(N)])


def write_files(folder: Path) -> None:
    for name in ("zoo", "thingsvision", "saelens", "resi"):
        (folder / name).mkdir()
    np.save(folder / "ids.npy", IDS)
    np.save(folder / "zoo/layer1.npy", ROWS)
    pq.write_table(pa.table({"layer1": list(ROWS), "id": IDS}), folder / "vit.parquet")
    with UPath("memory://bucket/far.npz").open("wb") as file:
        np.savez(file, layer1=ROWS)
    with h5py.File(folder / "bert.h5", "w") as file:
        file["hidden/layer1"], file["mask"] = TOKENS, np.ones((N, 4), bool)
    np.savez(folder / "conv.npz", layer1=IMAGES)
    write_pieces(folder)
    with h5py.File(folder / "thingsvision/features.hdf5", "w") as file:
        file.create_dataset("features", data=ROWS)
    (folder / "thingsvision/file_names.txt").write_text("\n".join(IDS))
    write_saelens(folder / "saelens")
    torch = pytest.importorskip("torch")
    feats = {"feats": torch.from_numpy(TOKENS), "num_params": 7, "mask": torch.ones(N, 4), "loss": torch.zeros(N)}
    torch.save(feats, folder / "platonic.pt")
    np.savez(folder / "resi/standard__ResNet18__ImageNet100__0__ImageNet100__3.npz", representation=IMAGES)


def write_pieces(folder: Path) -> None:
    """Write the files whose rows lie in pieces, or under names of their own."""
    np.save(folder / "stack.npy", np.stack([ROWS, ROWS * 2, ROWS * 3]))
    with (folder / "hidden.bin").open("wb") as file:
        np.save(file, ROWS.astype(ml_dtypes.bfloat16))
    for name in ("shards", "stimuli/conv"):
        (folder / name).mkdir(parents=True)
    with h5py.File(folder / "stimuli.h5", "w") as stimuli:
        for row, name in enumerate(IDS):
            save_file({"conv": ROWS[row : row + 1]}, folder / f"shards/rows_{row}.safetensors")
            np.save(folder / f"stimuli/conv/{name}.npy", ROWS[row])
            stimuli[f"conv/{name}"] = ROWS[row]
    lines = [",".join(["f_id", *(f"f{column}" for column in range(5))])]
    lines += [",".join([name, *map(repr, row.tolist())]) for name, row in zip(IDS, ROWS.astype(float), strict=True)]
    (folder / "wide.csv").write_text("\n".join(lines))
    np.save(folder / "named.npy", ROWS)
    (folder / "named.txt").write_text("\n".join(f"images/{name}.png" for name in IDS))
    np.save(folder / "trials.npy", np.concatenate([ROWS - 1, ROWS + 1]))
    (folder / "trials.txt").write_text("\n".join([*IDS, *IDS]))


def write_saelens(folder: Path) -> None:
    """Write Array2D columns as `datasets` does: lists of lists, under the name of an extension type."""
    kind = pa.list_(pa.list_(pa.float32()))
    metadata = {"ARROW:extension:name": "datasets.features.features.Array2DExtensionType"}
    field = pa.field("blocks.0.hook_resid_post", kind, metadata=metadata)
    schema = pa.schema([field, pa.field("token_ids", pa.list_(pa.int32()))])
    columns = [pa.array(TOKENS.tolist(), kind), pa.array([[1, 2, 3, 4]] * N, pa.list_(pa.int32()))]
    path = folder / "data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


EXPECTED: dict[str, tuple[str, np.ndarray]] = {
    "resnet": ("layer1", ROWS),
    "vit": ("layer1", ROWS),
    "stack": ("1", ROWS * 2),
    "hidden": ("hidden", ROWS.astype(ml_dtypes.bfloat16).astype(np.float32)),
    "shards": ("conv", ROWS),
    "stimuli": ("conv", ROWS),
    "files": ("conv", ROWS),
    "wide": ("wide", ROWS.astype(np.float64)),
    "named": ("named", ROWS),
    "trials": ("trials", ROWS),
    "far": ("layer1", ROWS),
    "bert": ("layer1", TOKENS[:, 1:].mean(1)),
    "conv": ("layer1", IMAGES.mean((1, 2)).astype(np.float16)),
    "thingsvision": ("features", ROWS),
    "saelens": ("0", TOKENS[:, -1]),
    "platonic-rep": ("1", TOKENS[:, 1]),
    "resi": ("3", IMAGES.mean((2, 3))),
}


def test_page__has_a_line_for_each_layout_and_names_each_suffix() -> None:
    assert [line.split(":")[0] for line in LINES] == list(EXPECTED)
    assert all(suffix in PAGE for suffix in FORMATS if suffix != ".zarr")


def test_page__tells_how_to_write_a_reader() -> None:
    (imports,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(imports, {})  # noqa: S102 - the page's own line

    assert f'[project.entry-points."{ENTRY_POINTS}"]' in PAGE
    assert all(f"`{field.name}`" in PAGE for field in fields(StoredArray))


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split(":")[0])
def test_line_of_the_page__reads_its_layout(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LFM_ATLAS_STORAGE_LAB", "{}")
    write_files(tmp_path)
    catalog: dict[str, Any] = {"version": 1, "datasets": {"probe": {"ids": {"path": "ids.npy"}}}}
    catalog["models"] = YAML(typ="safe").load(line)
    with (tmp_path / "data_catalog.yaml").open("w") as file:
        YAML().dump(catalog, file)
    zoo = read_catalog(tmp_path / "data_catalog.yaml")
    ((name, model),) = zoo.models_on_datasets()
    layer, expected = EXPECTED[name]

    source = open_source(name, model, zoo, read_dataset("probe", zoo))
    (batch,) = source.batches([layer], np.arange(N))

    assert source.ids.tolist() == IDS.tolist()
    assert batch[layer].dtype == expected.dtype
    tolerance = 1e-3 if expected.dtype == np.float16 else 1e-6
    np.testing.assert_allclose(batch[layer], expected, rtol=tolerance, atol=tolerance)
