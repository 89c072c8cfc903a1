"""A zoo of fifty files of twenty kinds that all hold the same rows, and a catalog of it: files as people have them.

``python -m tests.format_zoo FOLDER`` writes it; ``lfm-atlas validate --deep`` there reads it.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import xarray as xr
import zarr
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

N, N_FEATURES = 60, 8
IDS = [f"img{row:03}" for row in range(N)]
ROWS = np.random.default_rng(0).integers(-120, 120, (N, N_FEATURES)).astype(np.float32) / 32

# From the folder, and the name of the model, to how the catalog reads the file.
Write = Callable[[Path, str], dict[str, Any]]


def write_format_zoo(folder: Path) -> tuple[str, ...]:
    """Write the files and ``data_catalog.yaml``; return the names of the models, a file or folder of its own each."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "ids.npy", np.array(IDS))
    (folder / "labels.csv").write_text("image,label\n" + "\n".join(f"{one},{row % 3}" for row, one in enumerate(IDS)))
    groups = ({"id": one, "group": f"g{row // 6}"} for row, one in enumerate(IDS))
    (folder / "groups.jsonl").write_text("\n".join(map(json.dumps, groups)))
    np.save(folder / "inputs.npy", ROWS)
    models = {name: write(folder, name) for name, write in WRITERS.items()}
    catalog = {
        "version": 1,
        "datasets": {
            "probe": {
                "ids": {"path": "ids.npy"},
                "labels": {"path": "labels.csv", "key": "label"},
                "groups": {"path": "groups.jsonl", "key": "group"},
                "inputs": {"path": "inputs.npy"},
            }
        },
        "models": {
            name: {"onnx": settings}
            if str(settings["path"]).endswith(".onnx")
            else {"activations": {**settings, "dataset": "probe"}}
            for name, settings in models.items()
        },
        "atlas": {"n_eigenpairs": 10, "graph": {"n_neighbors": 10}},
    }
    (folder / "data_catalog.yaml").write_text(json.dumps(catalog, indent=1))  # JSON is YAML
    return tuple(models)


def _npy(values: np.ndarray, suffix: str = ".npy", **settings: Any) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        with (folder / f"{name}{suffix}").open("wb") as file:
            np.save(file, values)
        return {"path": f"{name}{suffix}", **settings}

    return write


def _npz(pack: bool, **arrays: np.ndarray) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        (np.savez_compressed if pack else np.savez)(folder / f"{name}.npz", **(arrays or {"layer": ROWS}))
        return {"path": f"{name}.npz"}

    return write


def _with_ids(folder: Path, name: str) -> dict[str, Any]:
    order = np.random.default_rng(1).permutation(N)
    np.savez(folder / f"{name}.npz", layer=ROWS[order], ids=np.array(IDS)[order], labels=order % 3, lr=0.1)
    return {"path": f"{name}.npz", "ids": {"path": f"{name}.npz", "key": "ids"}}


def _safetensors(dtype: Any) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        save_file({"layer": ROWS.astype(dtype)}, folder / f"{name}.safetensors")
        return {"path": f"{name}.safetensors"}

    return write


def _shards(folder: Path, name: str) -> dict[str, Any]:
    (folder / name).mkdir()
    for number in range(12):
        save_file({"layer": ROWS[number * 5 : number * 5 + 5]}, folder / name / f"rows_{number}.safetensors")
    return {"path": f"{name}/rows_{{shard}}.safetensors"}


def _zarr(version: int, **options: Any) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        group = zarr.create_group(folder / f"{name}.zarr", zarr_format=version)  # type: ignore[arg-type]
        group.create_array("block/layer", data=ROWS, **options)
        return {"path": f"{name}.zarr", "key": "block/{layer}"}

    return write


def _zarr_array(folder: Path, name: str) -> dict[str, Any]:
    zarr.save_array(folder / f"{name}.zarr", ROWS)
    return {"path": f"{name}.zarr"}


def _xarray(kind: str) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        data = xr.Dataset({"layer": (("point", "feature"), ROWS)}, coords={"point": IDS})
        packed = {"layer": {"dtype": "int16", "scale_factor": 1 / 128, "add_offset": 0.5, "_FillValue": -32768}}
        if kind.startswith("zarr"):
            data[["layer"]].drop_vars("point").to_zarr(
                folder / f"{name}.zarr", zarr_format=int(kind[-1]), encoding=packed, consolidated=False
            )
            return {"path": f"{name}.zarr"}
        data.to_netcdf(
            folder / f"{name}.nc",
            engine="scipy",
            encoding=packed if kind == "packed" else {},
            unlimited_dims=["point"] if kind == "growing" else [],
        )
        return {"path": f"{name}.nc", "ids": {"path": f"{name}.nc", "key": "point"}}

    return write


def _hdf5(suffix: str = ".h5", key: str = "layer", *, packed: bool = False, **options: Any) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        with h5py.File(folder / f"{name}{suffix}", "w") as file:
            if packed:
                file.create_dataset(key, data=(ROWS * 128).astype(np.int16))
                file[key].attrs["scale_factor"] = 1 / 128
            else:
                file.create_dataset(key, data=ROWS, **options)
            file.create_dataset("ids", data=IDS)
        return {"path": f"{name}{suffix}", "ids": {"path": f"{name}{suffix}", "key": "ids"}}

    return write


def _stimuli(folder: Path, name: str) -> dict[str, Any]:
    with h5py.File(folder / f"{name}.hdf5", "w") as file:
        for one, row in zip(IDS, ROWS, strict=True):
            file[f"layer/{one}"] = row
    return {"path": f"{name}.hdf5", "key": "{layer}/{id}"}


def _stimulus_files(folder: Path, name: str) -> dict[str, Any]:
    (folder / name / "layer").mkdir(parents=True)
    for one, row in zip(IDS, ROWS, strict=True):
        np.save(folder / name / "layer" / f"{one}.npy", row)
    return {"path": f"{name}/{{layer}}/{{id}}.npy"}


def _table() -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.reshape(-1)), N_FEATURES)
    return pa.table({"id": IDS, "layer": lists})


def _wide() -> pa.Table:
    return pa.table({"id": IDS, **{f"f{column}": ROWS[:, column] for column in range(N_FEATURES)}})


def _parquet(suffix: str, table: Callable[[], pa.Table] = _table, **settings: Any) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        pq.write_table(table(), folder / f"{name}{suffix}", row_group_size=7)
        return {"path": f"{name}{suffix}", "ids": {"path": f"{name}{suffix}", "key": "id"}, **settings}

    return write


def _parquet_folder(folder: Path, name: str) -> dict[str, Any]:
    (folder / name).mkdir()
    for number in range(12):
        pq.write_table(_table().slice(number * 5, 5), folder / name / f"part-{number}.parquet")
    return {"path": name, "ids": {"path": name, "key": "id"}}


def _arrow(suffix: str, *, stream: bool, table: Callable[[], pa.Table] = _table, **settings: Any) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with pa.OSFile(str(folder / f"{name}{suffix}"), "wb") as sink, new(sink, table().schema) as writer:
            writer.write_table(table(), max_chunksize=7)
        return {"path": f"{name}{suffix}", **settings}

    return write


def _feather(compression: str) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        pa.feather.write_feather(_table(), str(folder / f"{name}.feather"), compression=compression)
        return {"path": f"{name}.feather"}

    return write


def _saved_dataset(folder: Path, name: str) -> dict[str, Any]:
    (folder / name).mkdir()
    _arrow(".arrow", stream=True)(folder / name, "data-00000-of-00001")
    (folder / name / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    return {"path": name, "ids": {"path": name, "key": "id"}}


def _torch(content: Callable[[Any], Any], suffix: str = ".pt", **settings: Any) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        import torch

        torch.save(content(torch.from_numpy(ROWS.copy())), folder / f"{name}{suffix}")
        return {"path": f"{name}{suffix}", **settings}

    return write


def _separated(folder: Path, name: str) -> dict[str, Any]:
    lines = [",".join(["id", *(f"f{column}" for column in range(N_FEATURES))])]
    lines += [",".join([one, *map(str, row.tolist())]) for one, row in zip(IDS, ROWS.astype(float), strict=True)]
    (folder / f"{name}.csv").write_text("\n".join(lines))
    return {"path": f"{name}.csv", "columns": ["f*"], "ids": {"path": f"{name}.csv", "key": "id"}}


def _json_lines(folder: Path, name: str) -> dict[str, Any]:
    rows = ({"id": one, "layer": row.tolist()} for one, row in zip(IDS, ROWS.astype(float), strict=True))
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return {"path": f"{name}.jsonl", "ids": {"path": f"{name}.jsonl", "key": "id"}}


def _text_ids(folder: Path, name: str) -> dict[str, Any]:
    np.save(folder / f"{name}.npy", ROWS)
    (folder / f"{name}.txt").write_text("\n".join(f"images/{one}.png" for one in IDS))
    return {"path": f"{name}.npy", "ids": {"path": f"{name}.txt", "as": "stem"}}


def _trials(folder: Path, name: str) -> dict[str, Any]:
    np.save(folder / f"{name}.npy", np.concatenate([ROWS - 1, ROWS + 1]))
    (folder / f"{name}.txt").write_text("\n".join([*IDS, *IDS]))
    return {"path": f"{name}.npy", "ids": {"path": f"{name}.txt"}, "repeats": "mean"}


def _onnx(batch: int | str, *, data_beside: bool = False) -> Write:
    def write(folder: Path, name: str) -> dict[str, Any]:
        weights = numpy_helper.from_array(np.eye(N_FEATURES, dtype=np.float32), "W")
        kinds = [helper.make_tensor_value_info(one, TensorProto.FLOAT, [batch, N_FEATURES]) for one in ("x", "layer")]
        node = helper.make_node("MatMul", ["x", "W"], ["layer"])
        graph = helper.make_graph([node], name, kinds[:1], kinds[1:], [weights])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        options: dict[str, Any] = {"location": f"{name}.onnx.data", "size_threshold": 0} if data_beside else {}
        onnx.save(model, folder / f"{name}.onnx", save_as_external_data=data_beside, **options)
        return {"path": f"{name}.onnx", "dataset": "probe"}

    return write


_STACK = np.stack([ROWS, ROWS, ROWS])
WRITERS: dict[str, Write] = {
    "npy": _npy(ROWS),
    "npy-fortran": _npy(np.asfortranarray(ROWS)),
    "npy-big-endian": _npy(ROWS.astype(">f4")),
    "npy-double": _npy(ROWS.astype(np.float64)),
    "npy-half": _npy(ROWS.astype(np.float16)),
    "npy-capitals": _npy(ROWS, ".NPY"),
    "npy-nameless": _npy(ROWS, ".dat", format="npy"),
    "npy-bfloat16": _npy(ROWS.astype(ml_dtypes.bfloat16), read_as="bfloat16"),
    "npy-layers-first": _npy(_STACK, key="[{layer},:]"),
    "npy-layers-second": _npy(np.swapaxes(_STACK, 0, 1), key="[{layer}]"),
    "npy-channels-first": _npy(ROWS[:, :, None, None].repeat(4, 2), shape="nchw", pool="mean"),
    "npy-channels-last": _npy(ROWS[:, None, None].repeat(4, 1), shape="nhwc", pool="mean"),
    "npy-hidden-states": _npy(ROWS[:, None, None].repeat(4, 2), shape="ntd", pool="mean"),
    "npy-text-ids": _text_ids,
    "npy-trials": _trials,
    "npy-stimuli": _stimulus_files,
    "npz": _npz(False),
    "npz-packed": _npz(True),
    "npz-with-ids": _with_ids,
    "safetensors": _safetensors(np.float32),
    "safetensors-half": _safetensors(np.float16),
    "safetensors-shards": _shards,
    "zarr2": _zarr(2, chunks=(7, 4)),
    "zarr3": _zarr(3, chunks=(7, 4)),
    "zarr3-shards": _zarr(3, chunks=(5, 4), shards=(20, 8)),
    "zarr-array": _zarr_array,
    "zarr2-packed": _xarray("zarr2"),
    "zarr3-packed": _xarray("zarr3"),
    "hdf5": _hdf5(),
    "hdf5-chunks": _hdf5(".hdf5", chunks=(7, 3), compression="gzip"),
    "hdf5-packed": _hdf5(packed=True),
    "hdf5-stimuli": _stimuli,
    "h5ad": _hdf5(".h5ad", "X"),
    "netcdf4": _hdf5(".nc", "group/layer"),
    "netcdf": _xarray("plain"),
    "netcdf-growing": _xarray("growing"),
    "netcdf-packed": _xarray("packed"),
    "parquet": _parquet(".parquet"),
    "parquet-pq": _parquet(".pq"),
    "parquet-wide": _parquet(".parquet", _wide, columns=["f*"]),
    "parquet-folder": _parquet_folder,
    "arrow-file": _arrow(".arrow", stream=False),
    "arrow-stream": _arrow(".arrow", stream=True),
    "arrow-wide": _arrow(".arrow", stream=False, table=_wide, columns=["f*"]),
    "feather": _feather("lz4"),
    "feather-zstd": _feather("zstd"),
    "save-to-disk": _saved_dataset,
    "torch": _torch(lambda rows: rows),
    "torch-nested": _torch(lambda rows: {"epoch": 3, "hidden": (rows, rows * 1)}, ".pth", key="hidden/{layer}"),
    "csv": _separated,
    "jsonl": _json_lines,
    "onnx": _onnx("N"),
    "onnx-fixed-batch": _onnx(7),
    "onnx-data-beside": _onnx("N", data_beside=True),
}


def kinds() -> Iterator[str]:
    """Yield what kinds of files the zoo holds: the first word of each name."""
    yield from dict.fromkeys(name.partition("-")[0] for name in WRITERS)


if __name__ == "__main__":
    write_format_zoo(Path(sys.argv[1]))
