"""Remote files are read as local ones are: S3 (moto) and HTTP servers on loopback, nothing beyond it."""

import io
import json
import logging
import re
import shutil
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from safetensors.numpy import save_file

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.session import open_run
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.paths import locate
from lfm_tasks.sources.opening import read_dataset
from lfm_tasks.sources.source import FilePattern, FileSource
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stages.inventory.stage import validate
from lfm_tasks.stores.units.store import UnitStore

N = 30
IDS = np.array([f"id{number:02}" for number in range(N)])
ROWS = np.random.default_rng(0).standard_normal((N, 5)).astype(np.float32)
SECRET = "a-word-that-nobody-may-read"  # noqa: S105 - of no server

Write = Callable[[Path, np.ndarray], object]


def lists(values: np.ndarray) -> pa.Table:
    return pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])})


def hdf5(path: Path, values: np.ndarray, **options: object) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=values, **options)


def zarr_group(path: Path, values: np.ndarray, **options: Any) -> None:
    rows = len(values) // 10
    zarr.create_group(path, zarr_format=options.pop("zarr_format", 3)).create_array(
        "x", data=values, chunks=(rows, values.shape[1]), **options
    )


def ipc(path: Path, values: np.ndarray) -> None:
    table = lists(values)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=len(values) // 10)


# File and key: {layer} is x in each of them.
WRITE: dict[str, tuple[str, str | None, Write]] = {
    "npy": ("x.npy", None, np.save),
    "npz": ("a.npz", "x", lambda path, values: np.savez(path, x=values)),
    "safetensors": ("a.safetensors", "x", lambda path, values: save_file({"x": values}, path)),
    "hdf5": ("a.h5", "x", hdf5),
    "hdf5 in chunks": ("a.h5", "x", lambda path, values: hdf5(path, values, chunks=(len(values) // 10, 5))),
    "zarr 2": ("a.zarr", "x", lambda path, values: zarr_group(path, values, zarr_format=2)),
    "zarr 3": ("a.zarr", "x", zarr_group),
    "zarr shards": (
        "a.zarr", "x", lambda path, values: zarr_group(path, values, shards=(len(values) // 2, values.shape[1])),
    ),
    "parquet": ("a.parquet", "x", lambda path, values: pq.write_table(lists(values), path, row_group_size=len(values) // 10)),  # noqa: E501
    "arrow": ("a.arrow", "x", ipc),
}  # fmt: skip


@dataclass
class Server:
    """A server on loopback: ``put`` gives it what lies in a folder, ``url`` is where; ``sent`` counts bytes."""

    url: str
    put: Callable[[Path], None]
    storage: str | None = None
    sent: list[int] = field(default_factory=list)

    def open(self, path: str, key: str | None = None) -> Any:
        return open_array(locate(Path(), f"{self.url}/{path}", self.storage), f"{self.url}/{path}", key)


class Ranges(SimpleHTTPRequestHandler):
    """Serves files in parts, as the servers of the web do and that of the standard library does not."""

    sent: list[int]

    def log_message(self, *arguments: object) -> None:
        pass

    def send_head(self) -> Any:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None or not path.is_file():
            return super().send_head()
        content = path.read_bytes()
        start = len(content) - int(asked[2]) if not asked[1] else int(asked[1])
        part = content[start : int(asked[2]) + 1 if asked[1] and asked[2] else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        return io.BytesIO(part)

    def copyfile(self, source: Any, outputfile: Any) -> None:
        self.sent.append(len(content := source.read()))
        outputfile.write(content)


class WholeFiles(Ranges):
    send_head = SimpleHTTPRequestHandler.send_head


def serve(handler: type[Ranges], folder: Path) -> Iterator[Server]:
    sent: list[int] = []
    counting = type("Counting", (handler,), {"sent": sent})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(counting, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        put = partial(shutil.copytree, dst=folder, dirs_exist_ok=True)
        yield Server(f"http://127.0.0.1:{server.server_port}", put, sent=sent)
        server.shutdown()
        thread.join()


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    yield from serve(Ranges, tmp_path / "served")


@pytest.fixture
def http_of_whole_files(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    yield from serve(WholeFiles, tmp_path / "served")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Give the address of an S3 server; nothing of this machine's AWS settings is read, and no metadata service."""
    moto_server = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.setenv(name, "/nonexistent")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


def options(endpoint: str, **more: Any) -> str:
    retries = {"config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 5}}
    return json.dumps({"key": "AKIAEXAMPLEEXAMPLE00", "secret": SECRET, "endpoint_url": endpoint, **retries, **more})


@pytest.fixture
def s3(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    import s3fs

    monkeypatch.setenv("LFM_ATLAS_STORAGE_LAB", options(endpoint))
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/moto-api/reset", method="POST")).close()  # noqa: S310
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(**json.loads(options(endpoint)))
    files.call_s3("create_bucket", Bucket="zoo")

    def put(folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                files.pipe_file(f"zoo/{path.relative_to(folder).as_posix()}", path.read_bytes())

    yield Server("s3://zoo", put, "lab")
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("kind", WRITE)
@pytest.mark.parametrize("protocol", ["s3", "http"])
def test_rows__come_back_as_from_a_local_file(
    protocol: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(protocol)
    name, key, write = WRITE[kind]
    (tmp_path / "local").mkdir()
    write(tmp_path / "local" / name, ROWS)
    server.put(tmp_path / "local")
    order = np.random.default_rng(1).permutation(N)[:20]

    remote = FileSource(FilePattern(tmp_path, f"{server.url}/{name}", key, server.storage), IDS)
    local = FileSource(FilePattern(tmp_path / "local", name, key), IDS)
    back = np.concatenate([batch["x"] for batch in remote.batches(["x"], order)])

    np.testing.assert_array_equal(back, ROWS[order])
    assert remote.layer_names() == local.layer_names() == ("x",)
    assert remote.identity("x") == local.identity("x")


@pytest.mark.parametrize("kind", WRITE)
def test_a_few_rows_of_a_large_array__fetch_a_few_bytes(kind: str, tmp_path: Path, http: Server) -> None:
    name, key, write = WRITE[kind]
    values = np.random.default_rng(0).standard_normal((100_000, 40)).astype(np.float32)  # 16 MB
    (tmp_path / "local").mkdir()
    write(tmp_path / "local" / name, values)
    http.put(tmp_path / "local")

    array = http.open(name, key)
    with array.rows() as read:
        np.testing.assert_array_equal(read(np.arange(100, 110)), values[100:110])

    # Chunks and row groups hold a tenth; of the first one the header may be told, and a MiB is read ahead at a time.
    # HDF5 has its list of chunks in several places, and all are looked at: a chunk that is missing would be zeros.
    assert sum(http.sent) < values.nbytes * (0.6 if kind.startswith("hdf5") else 0.5)


@pytest.mark.parametrize("protocol", ["s3", "http"])
@pytest.mark.parametrize("kind", ["npy", "zarr 3"])
def test_file_that_changes__is_noticed(
    kind: str, protocol: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server: Server = request.getfixturevalue(protocol)
    name, key, write = WRITE[kind]
    for folder, values in (("first", ROWS), ("second", np.concatenate([ROWS, ROWS]))):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / name, values)
    server.put(tmp_path / "first")
    array = server.open(name, key)
    array.load()

    server.put(tmp_path / "second")
    with pytest.raises(DataError, match=r"the file changed while it was read\. Start again"):
        array.load()


def catalog_of(folder: Path, write_zoo: Any, models: Any, url: str) -> Path:
    """Write a zoo whose activations and ids lie remotely; return its local twin's files and the catalog's folder."""
    local = write_zoo(folder / "local", models)
    text = (
        (local / "data_catalog.yaml").read_text().replace("path: ids.npy", f"path: {url}/ids.npy\n      storage: lab")
    )
    text = text.replace("'{model}.npz'", f"'{url}/{{model}}.npz'\n      storage: lab")
    text = text.replace("'{model}_ids.npy'", f"'{url}/{{model}}_ids.npy'\n        storage: lab")
    (folder / "remote").mkdir()
    (folder / "remote" / "data_catalog.yaml").write_text(text)
    return folder / "remote"


def exit_code(*arguments: str) -> int:
    try:
        return int(app(list(arguments), result_action="return_value"))
    except SystemExit as stop:
        return int(stop.code or 0)


def test_catalog_of_a_bucket__is_validated_and_recorded(
    s3: Server, tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    models = related_spaces(2)
    folder = catalog_of(tmp_path, write_zoo, models, s3.url)
    s3.put(tmp_path / "local")

    assert exit_code("validate", "--deep", str(folder / "data_catalog.yaml")) == 0
    told = capsys.readouterr()
    assert re.search(r"model1/layer1 +120 points +13 features +float32 +0 dead +finite", told.out)
    outcome = build(folder)

    assert (outcome.failures, outcome.computed["activations"]) == ((), 4)
    catalog = read_catalog(folder / "data_catalog.yaml")
    with open_run(catalog, lambda stage, done, total: None, in_process=True) as run:
        [planned] = [planned for planned in validate(run).spaces if planned.space.name == "model1/layer0"]
    layers, ids = models["model1"]
    with UnitStore(folder / ".lfm-atlas").open("activations", planned.key) as unit:
        np.testing.assert_array_equal(read_activations(unit), layers["layer0"][np.argsort(ids)])
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert SECRET not in told.out + told.err


@pytest.mark.parametrize(
    ("path", "storage", "message"),
    [
        ("s3://zoo/b.npy", "lab", r"s3://zoo/b\.npy: no such file; did you mean 'a\.npy'"),
        ("s3://zoo/b.npz", "lab", r"s3://zoo/b\.npz: no such file"),
        ("s3://zoo/{layer}/b.npy", "lab", r"no file matches; there is a\.npy"),
        ("s3://moo/a.npy", "lab", r"s3://moo/a\.npy: no such file; there is no folder '(s3://)?moo/?' either"),
        (
            "s3://zoo/a.npy",
            "nowhere",
            r"cannot be read \(Could not connect to the endpoint URL: \"http://127\.0\.0\.1:9/",
        ),
        ("s3://zoo/a.npy", None, r"s3://zoo/a\.npy: cannot be read \(Unable to locate credentials\)"),
        ("s3://zoo/a.npy", "mistyped", r"s3://zoo/a\.npy: (s3:// cannot be opened|cannot be read) \("),
    ],
)
def test_what_cannot_be_had_from_a_bucket__is_told(
    path: str, storage: str | None, message: str, s3: Server, endpoint: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "local").mkdir()
    np.save(tmp_path / "local" / "a.npy", ROWS)
    s3.put(tmp_path / "local")
    monkeypatch.setenv("LFM_ATLAS_STORAGE_NOWHERE", options("http://127.0.0.1:9"))
    monkeypatch.setenv("LFM_ATLAS_STORAGE_MISTYPED", options(endpoint, keey=SECRET))

    with pytest.raises(DataError, match=message) as caught:
        FileSource(FilePattern(tmp_path, path, None, storage), IDS).shape("a")

    assert caught.value.reason == "missing_source"
    assert SECRET not in str(caught.value)


def test_wrong_credentials__are_told_without_them(s3: Server, endpoint: str, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    np.save(tmp_path / "local" / "a.npy", ROWS)
    s3.put(tmp_path / "local")

    def checks_credentials(after: str) -> None:
        of_text = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", after.encode(), of_text)  # noqa: S310
        urllib.request.urlopen(request).close()  # noqa: S310

    checks_credentials("0")
    try:
        with pytest.raises(
            DataError, match=r"s3://zoo/a\.npy: cannot be read \((Forbidden|.*does not exist)"
        ) as caught:
            s3.open("a.npy")
        with pytest.raises(DataError, match=r"s3://zoo/\{layer\}\.npy: ") as refused:
            FileSource(FilePattern(tmp_path, "s3://zoo/{layer}.npy", None, "lab"), IDS)
    finally:
        checks_credentials("inf")
    for error in (caught, refused):
        assert SECRET not in str(error.value)
        assert "AKIAEXAMPLEEXAMPLE00" not in str(error.value)


def test_layers_of_a_bucket__are_found(s3: Server, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    for number in (10, 2):
        np.save(tmp_path / "local" / f"layer{number}.npy", ROWS + number)
    s3.put(tmp_path / "local")

    source = FileSource(FilePattern(tmp_path, "s3://zoo/{layer}.npy", None, "lab"), IDS)

    assert source.layer_names() == ("layer2", "layer10")
    (batch,) = source.batches(["layer10"], np.arange(N))
    np.testing.assert_array_equal(batch["layer10"], ROWS + 10)


def test_dataset_of_a_web_server__is_read(http: Server, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "ids.txt").write_text("\n".join(IDS))
    np.save(tmp_path / "local" / "layer1.npy", ROWS)
    http.put(tmp_path / "local")
    (tmp_path / "data_catalog.yaml").write_text(
        f"version: 1\ndatasets: {{probe: {{ids: {{path: '{http.url}/ids.txt'}}}}}}\n"
        f"models: {{a: {{activations: {{path: '{http.url}/{{layer}}.npy', dataset: probe}}}}}}\n"
    )
    assert read_dataset("probe", read_catalog(tmp_path / "data_catalog.yaml")).ids.tolist() == IDS.tolist()
    assert FileSource(FilePattern(tmp_path, f"{http.url}/{{layer}}.npy"), IDS).layer_names() == ("layer1",)


def test_server_without_parts__is_told(http_of_whole_files: Server, tmp_path: Path) -> None:
    (tmp_path / "local").mkdir()
    np.savez(tmp_path / "local" / "a.npz", x=ROWS)
    http_of_whole_files.put(tmp_path / "local")
    with pytest.raises(DataError, match=r"a\.npz: cannot be read \(the server sends whole files only; copy"):
        http_of_whole_files.open("a.npz", "x")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{}/none.npy", r"none\.npy: no such file"),
        ("http://127.0.0.1:9/a.npy", r"a\.npy: (cannot be read|no such file)"),
    ],
)
def test_what_a_web_server_does_not_have__is_told(url: str, message: str, http: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        FileSource(FilePattern(tmp_path, url.format(http.url)), IDS).shape("none")
