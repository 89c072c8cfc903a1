"""Models of an MLflow registry: which versions a section takes, where their files lie, what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.catalog import mlflow_registry as registry
from lfm_tasks.catalog.mlflow_registry import registered_versions
from lfm_tasks.catalog.models import MlflowRegistry

CATALOG = """
version: 1
datasets: {docs: {texts: {path: texts.txt}}}
discover:
  registered:
    transformers: {path: "{model}/model", tokenizer: "{model}/components/tokenizer", dataset: docs}
    mlflow: {registry: mlflow.db%s}
"""


def write_version(folder: Path) -> Path:
    """Write what MLflow's flavor of transformers writes, as far as the catalog looks at it."""
    for part in ("model", "components/tokenizer"):
        (folder / part).mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 3}))
    (folder / "components" / "tokenizer" / "tokenizer.json").write_text("{}")
    (folder / "MLmodel").write_text("flavors: {transformers: {task: fill-mask, source_model_name: org/base}}\n")
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a catalog's folder with a registry of three versions of one model, and two of others elsewhere."""
    (tmp_path / "texts.txt").write_text("one\ntwo\n")
    (tmp_path / "mlflow.db").write_bytes(b"a registry")
    places = [write_version(tmp_path / "mlruns" / f"m-{number}") for number in (1, 2, 10)]
    entries = (
        ("reader", 10, f"file://{places[2]}", ()),
        ("reader", 1, str(places[0]), ("champion", "first")),
        ("reader", 2, f"mlruns/{places[1].name}", ()),
        ("other", 1, "s3://bucket/m-3", ()),
        ("stray", 1, "/usr/share", ()),
        ("gone", 1, f"{tmp_path}/mlruns/m-4", ()),
    )
    monkeypatch.setattr(registry, "_entries", lambda *_: entries)
    return tmp_path


def read(folder: Path, options: str = "") -> Any:
    (folder / "data_catalog.yaml").write_text(CATALOG % options)
    return read_catalog(folder / "data_catalog.yaml", {})


def test_latest_versions__become_models_with_their_folders_tokenizers_and_facts(folder: Path) -> None:
    catalog = read(folder)

    assert list(catalog.models) == ["reader"]
    settings = catalog.model_on("reader").source
    assert settings.path == f"{folder}/mlruns/m-10/model"
    assert settings.tokenizer == f"{folder}/mlruns/m-10/components/tokenizer"
    assert catalog.models["reader"].meta == {"mlflow_version": 10, "task": "fill-mask", "base_model": "org/base"}
    told = {one.name: one.message for one in catalog.refused_models}
    assert set(told) == {"'gone'", "'other'", "'stray'"}
    assert "got its files at s3://bucket/m-3, expected a folder of this machine" in told["'other'"]
    assert "expected a folder beside the registry or in the catalog's" in told["'stray'"]
    assert "where the registry says that its files are" in told["'gone'"]


def test_folder_elsewhere__is_taken_if_the_catalog_allows_it_by_links(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = write_version(tmp_path_factory.mktemp("elsewhere") / "m-1")
    monkeypatch.setattr(registry, "_entries", lambda *_: (("reader", 1, str(elsewhere), ()),))
    assert not read(folder).models

    (folder / "data_catalog.yaml").write_text(f"links: [{elsewhere.parent}]\n" + CATALOG % "")
    assert list(read_catalog(folder / "data_catalog.yaml", {}).models) == ["reader"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (", alias: champion", {"reader": 1}),
        (", alias: nobody", {}),
        (", versions: all", {"reader-v1": 1, "reader-v2": 2, "reader-v10": 10}),
    ],
)
def test_versions__are_chosen_by_alias_or_taken_all(folder: Path, options: str, expected: dict[str, int]) -> None:
    models = read(folder, options).models

    assert {name: model.meta["mlflow_version"] for name, model in models.items()} == expected
    assert [Path(model.transformers.path).parent.name for model in models.values()] == [
        f"m-{version}" for version in expected.values()
    ]


def test_new_version__is_another_folder_under_the_same_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read(folder).model_on("reader").source.path
    newer = write_version(folder / "mlruns" / "m-11")
    monkeypatch.setattr(registry, "_entries", lambda *_: (("reader", 10, before, ()), ("reader", 11, str(newer), ())))

    assert read(folder).model_on("reader").source.path == f"{newer}/model"


@pytest.mark.parametrize("make", [Path.unlink, lambda path: (path.unlink(), path.mkdir())])
def test_registry_that_is_no_file__is_told_and_other_sections_go_on(folder: Path, make: Any) -> None:
    make(folder / "mlflow.db")

    [refused] = read(folder).refused_models

    assert "expected the SQLite file of a registry, such as mlflow.db. Move a folder mlruns into one" in refused.message


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{model}/model", "zoo/{model}", r"got 'zoo/{model}' beside mlflow, expected {model}/\.\.\."),
        ("mlflow.db", "mlflow.db, alias: a, versions: all", "got alias and versions: all, expected one"),
        ("mlflow.db", "'sqlite:///mlflow.db'", "got an address, expected the path of a SQLite file"),
    ],
)
def test_section__is_checked(folder: Path, old: str, new: str, told: str) -> None:
    (folder / "data_catalog.yaml").write_text((CATALOG % "").replace(old, new, 1))

    with pytest.raises(CatalogError, match=told):
        read_catalog(folder / "data_catalog.yaml", {})


def test_registry__without_mlflow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").touch()
    monkeypatch.setitem(__import__("sys").modules, "mlflow.tracking", None)

    with pytest.raises(ValueError, match=r'expected mlflow-skinny. Run pip install "lfm-atlas\[mlflow\]"'):
        registered_versions(MlflowRegistry(registry="mlflow.db"), tmp_path)


def test_registry_of_mlflow__is_read_and_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    tracking = pytest.importorskip("mlflow.tracking", reason="needs the extra [mlflow]")
    version = write_version(tmp_path / "a b" / "m-1")
    address = f"sqlite:///{tmp_path}/mlflow.db"
    client = tracking.MlflowClient(tracking_uri=address, registry_uri=address)
    client.create_registered_model("reader")
    for place in (version, tmp_path / "gone"):
        client.create_model_version("reader", source=place.as_uri())
    client.set_registered_model_alias("reader", "champion", "1")
    before = (tmp_path / "mlflow.db").read_bytes()

    found = registered_versions(MlflowRegistry(registry="mlflow.db", versions="all"), tmp_path)
    [champion] = registered_versions(MlflowRegistry(registry="mlflow.db", alias="champion"), tmp_path)

    assert [(one.name, one.version, one.folder) for one in found] == [
        ("reader-v1", 1, version),
        ("reader-v2", 2, tmp_path / "gone"),
    ]
    assert (champion.folder, champion.problem) == (version, "")
    assert (tmp_path / "mlflow.db").read_bytes() == before

    shutil.copy(Path(__file__), tmp_path / "other.db")
    with pytest.raises(ValueError, match=r"got a registry other\.db that MLflow cannot read \(.*not a database"):
        registered_versions(MlflowRegistry(registry="other.db"), tmp_path)
