"""Values of the environment in paths: whole commands that fail on them, and nothing that is published, stored or said
has a value in it.
"""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from lfm_atlas.cli.main import app

pytestmark = pytest.mark.safety

# By value: what nobody may read. Of a word that messages are made of, only the paths with it in them tell the value.
TELLING = {
    "a/b/s3cret": ["s3cret"],
    "xy": [r"\bxy\b", "xxyy", r"xxy\."],
    "model": [r"/model\b", "xmodel", r"\bmodel\.onnx", "out-model", "'modelz"],
    "s3 c+r(e)t%2F": [r"s3 c\+r", "s3%20c"],
    "schlüssel": ["schl"],
}
CATALOG = """version: 1
datasets:
  probe: {ids: {path: 'ids.npy'}}
  digits: {builtin: digits}
  unnamed: {ids: {path: 'zoo/${KEY}/ids.txt'}}
models:
  good: {activations: {path: 'zoo/${KEY}/{layer}.npy', dataset: probe}}
  other: {activations: {path: '{layer}.npy', dataset: probe}}
  gone: {activations: {path: '${KEY}/gone/{layer}.npy', dataset: probe}}
  within: {activations: {path: 'zoo/x${KEY}y_{layer}.npy', dataset: probe}}
  array: {activations: {path: 'zoo/x${KEY}.npz', key: '{layer}', dataset: probe}}
  damaged: {activations: {path: 'zoo/${KEY}/damaged/{layer}.npy', dataset: probe}}
  hdf5: {activations: {path: 'zoo/${KEY}/bad.h5', key: '{layer}', dataset: probe}}
  parquet: {activations: {path: 'zoo/${KEY}/bad.parquet', key: '{layer}', dataset: probe}}
  memory: {activations: {path: 'memory://zoo-${KEY}/x/{layer}.npy', dataset: probe}}
  ids: {activations: {path: '{layer}.npy', dataset: unnamed}}
  graph: {onnx: {path: 'zoo/${KEY}/bad.onnx', dataset: digits}}
  near: {onnx: {path: 'zoo/${KEY}.onnx', dataset: digits}}
discover: {links: {onnx: {path: 'links/${KEY}/{model}.onnx', dataset: digits}}}
atlas: {path: 'out-${KEY}', graph: {n_neighbors: 5}, n_eigenpairs: 4, null: {n_permutations: 9}, measures: [overlap]}
audit: {baseline: 'baselines/${KEY}'}
"""


def write_zoo(folder: Path, value: str) -> None:
    zoo, links = folder / "zoo" / value, folder / "links" / value
    for made in (zoo / "damaged", links):
        made.mkdir(parents=True)
    generator = np.random.default_rng(0)
    np.save(folder / "ids.npy", np.array([f"p{row}" for row in range(40)]))
    for place in (folder / "first.npy", folder / "second.npy", zoo / "first.npy"):
        np.save(place, generator.standard_normal((40, 6)).astype(np.float32))
    (zoo / "damaged" / "first.npy").write_bytes(b"\x93NUMPY\x01\x00junk")
    for kind in ("h5", "parquet", "onnx"):
        (zoo / f"bad.{kind}").write_bytes(b"junk" * 50)
    (folder / "zoo" / f"{value}z.onnx").write_bytes(b"near")
    (links / "out.onnx").symlink_to("/etc/hostname")
    (folder / "data_catalog.yaml").write_text(CATALOG)


def lfm_atlas(folder: Path, value: str, *arguments: str) -> str:
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-m", "lfm_atlas", *arguments, "--catalog", "data_catalog.yaml"],
        cwd=folder, env=inherited | {"KEY": value}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 2, 3, 4), done.stderr
    return done.stdout + done.stderr


def told(folder: Path, value: str) -> dict[str, str]:
    """Return the texts of all files that are published, logged or stored; references must know where an atlas lies."""
    below = [folder / f"out-{value}", folder / "audits", folder / ".lfm-atlas"]
    files = [path for place in below for path in place.rglob("*") if path.is_file() and "references" not in path.parts]
    return {str(path): path.read_bytes().decode(errors="replace") for path in files}


def assert_hidden(value: str, texts: dict[str, str]) -> None:
    found = {
        name: text[max(0, match.start() - 80) : match.end() + 40]
        for name, text in texts.items()
        for pattern in TELLING[value]
        if (match := re.search(pattern, text))
    }
    assert found == {}


@pytest.mark.parametrize("value", TELLING)
def test_value_in_paths__is_told_to_nobody(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_zoo(tmp_path, value)
    monkeypatch.setenv("KEY", value)
    monkeypatch.chdir(tmp_path)
    run = ["--no-prefect", "--no-dask"]
    said = {}
    for words in (["validate"], ["plan"], ["layers", "good"], ["run", *run], ["audit", "--promote", *run], ["prune"]):
        with suppress(SystemExit):
            assert app(words, result_action="return_value") in (0, 2, 3, 4)
        said[words[0]] = "".join(capsys.readouterr())

    assert_hidden(value, said)
    texts = told(tmp_path, value)
    assert {Path(name).name for name in texts} >= {"summary.json", "report.html", "audit.html", "history.jsonl"}
    assert_hidden(value, texts)
    # The messages are still there, with the name of the variable.
    for message in (
        "${KEY}/gone/{layer}.npy: no such folder", "zoo/${KEY}/damaged/first.npy: cannot be read",
        "zoo/x${KEY}y_{layer}.npy: no ", "memory://zoo-${KEY}/x/{layer}.npy: no such folder",
        "zoo/${KEY}.onnx: no such file", "got a link that leads out of its folder",
    ):  # fmt: skip
        for text in (said["validate"], texts[str(tmp_path / f"out-{value}" / "summary.json")]):
            assert message in text


def test_value_in_paths__is_told_to_nobody_by_prefect(tmp_path: Path) -> None:
    value = "a/b/s3cret"
    write_zoo(tmp_path, value)

    said = {command: lfm_atlas(tmp_path, value, command) for command in ("run", "audit")}

    assert_hidden(value, said)
    texts = told(tmp_path, value)
    assert any(name.endswith("prefect.db") for name in texts)
    assert_hidden(value, texts)
