"""The catalog that ``init --from`` writes: it is read as it is written, and says what files cannot tell."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from safetensors.numpy import save_file

from lfm_atlas.cli.run import init
from lfm_atlas.console import OK, USAGE
from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.drafting import Draft, draft_catalog
from lfm_tasks.errors import DataError
from tests.checkpoint_zoo import promised_weights

BERT = {"model_type": "bert", "hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 5}
IMAGES = {"image_processor_type": "ViTImageProcessor", "do_resize": True}
VIT = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1}
PART = {"hidden_size": 8, "num_hidden_layers": 1}
CLIP = {"model_type": "clip", "text_config": PART, "vision_config": PART}
TEXTS = {"config.json": BERT, "tokenizer.json": {}}


def write(folder: Path, files: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for file, content in files.items():
        (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))
    save_file(promised_weights(files["config.json"]), folder / "model.safetensors")


def write_texts(path: Path, n_rows: int = 60, **columns: Any) -> None:
    rows = [{"id": f"t{row}", "text": f"words {row}", **{key: value(row) for key, value in columns.items()}}
            for row in range(n_rows)]  # fmt: skip
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def drafted(home: Path, **options: Any) -> tuple[Draft, Catalog]:
    draft = draft_catalog(home / "zoo", home, **options)
    (home / "data_catalog.yaml").write_text(draft.text)
    return draft, read_catalog(home / "data_catalog.yaml")


def test_draft_catalog__has_a_section_for_what_each_library_loads(tmp_path: Path) -> None:
    card = "---\nlicense: mit\n---\n"
    write(tmp_path / "zoo" / "bert", {**TEXTS, "README.md": card})
    write(tmp_path / "zoo" / "vit", {"config.json": VIT, "preprocessor_config.json": IMAGES})
    write(tmp_path / "zoo" / "resnet", {"config.json": {"architecture": "resnet18"}})
    write(tmp_path / "zoo" / "clip", {"config.json": CLIP, "tokenizer.json": {}, "preprocessor_config.json": IMAGES})
    write_texts(tmp_path / "texts.jsonl", label=lambda row: row % 3)
    (tmp_path / "images" / "cats").mkdir(parents=True)
    for number in range(60):
        (tmp_path / "images" / "cats" / f"{number}.png").write_bytes(b"")

    draft, catalog = drafted(tmp_path)

    assert draft.remarks == ()
    assert catalog.warnings() == []
    docs, photos = catalog.datasets["docs"].texts, catalog.datasets["photos"].images
    assert docs is not None
    assert photos is not None
    assert (docs.path, docs.text, docs.id, docs.label) == ("texts.jsonl", "text", "id", "label")
    assert (photos.path, photos.label) == ("images/*/*.png", "folder")
    models = {name: model.checkpoint for name, model in catalog.models_on_datasets()}
    loaded = {name: (loader, settings.dataset, settings.tower) for name, (loader, settings) in models.items()}  # type: ignore[misc]
    assert loaded == {
        "bert": ("transformers", "docs", None),
        "vit": ("transformers", "photos", None),
        "resnet": ("timm", "photos", None),
        "clip-text": ("transformers", "docs", "text"),
        "clip-vision": ("transformers", "photos", "vision"),
    }
    claims = "# Model cards claim these licenses (3 none), which nobody has looked at yet:\n#   mit: bert\n"
    assert claims in draft.text
    assert "\n# audit: {checks: {license: {allow: [mit]}}}\n" in draft.text
    assert catalog.audit.checks.license is None or catalog.audit.checks.license.allow == ()


def test_draft_catalog__says_what_it_does_not_know(tmp_path: Path) -> None:
    write(tmp_path / "zoo" / "bert", TEXTS)
    write(tmp_path / "zoo" / "vit", {"config.json": VIT, "preprocessor_config.json": IMAGES})
    write(tmp_path / "zoo" / "no tokenizer", {"config.json": BERT})
    write(tmp_path / "zoo" / "bare", {"config.json": BERT})
    (tmp_path / "zoo" / "notes").mkdir()
    (tmp_path / "zoo" / "notes" / "README.md").write_text("x")
    write_texts(tmp_path / "texts.jsonl", n_rows=12)

    draft, catalog = drafted(tmp_path)

    assert list(catalog.models) == ["bert", "bare"] or list(catalog.models) == ["bare", "bert"]
    assert draft.remarks[0] == (
        "got models that read images, and no images. Name them in data_catalog.yaml, and remove the # there"
    )
    assert draft.remarks[1] == "got 2 unusable folders: the end of data_catalog.yaml says why"
    refused = {one.name for one in catalog.refused_models}
    assert refused == {"'no tokenizer'"}  # bare is opened, and refused then
    assert draft.remarks[-1].startswith("notes: it holds no config.json")
    assert '# vision: {transformers: {path: "zoo/{model}", dataset: photos}}' in draft.text
    assert "# The patterns find these folders, too, and validate refuses them. Fix them or" in draft.text
    assert "\n#   bare: got no tokenizer.json" in draft.text
    assert "\n#   no tokenizer: " in draft.text
    assert "# No model card names a license." in draft.text


def test_draft_catalog__picks_columns_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "zoo" / "bert", TEXTS)
    table = pa.table({"id": ["a"] * 60, "short": ["x"] * 60, "deu": ["ein langer Satz"] * 60, "n": range(60)})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")

    draft, catalog = drafted(tmp_path)

    texts = catalog.datasets["docs"].texts
    assert texts is not None
    assert (texts.path, texts.text, texts.id) == ("rows.parquet", "deu", "positional")
    found = "60 texts; the columns are id, short, deu, n: which is the text?; no column holds ids"
    assert found in draft.text


@pytest.mark.parametrize("name", ["lines.txt", "rows.csv", "data/rows.jsonl"])
def test_draft_catalog__finds_tables_of_several_kinds(tmp_path: Path, name: str) -> None:
    write(tmp_path / "zoo" / "bert", TEXTS)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    contents = {".txt": "a line\n" * 60, ".csv": "id,text\n" + "".join(f"{row},words\n" for row in range(60))}
    contents[".jsonl"] = "".join(f'{{"id": {row}, "text": "words"}}\n' for row in range(60))
    (tmp_path / name).write_text(contents[Path(name).suffix])
    (tmp_path / "requirements.txt").write_text("numpy\n")

    _, catalog = drafted(tmp_path)

    texts = catalog.datasets["docs"].texts
    assert texts is not None
    assert texts.path == name
    assert texts.id == (None if name.endswith(".txt") else "id")


def test_draft_catalog__takes_the_data_that_is_named_and_tells_of_others(tmp_path: Path) -> None:
    write(tmp_path / "zoo" / "bert", TEXTS)
    write_texts(tmp_path / "a.jsonl")
    write_texts(tmp_path / "b.jsonl")

    named, catalog = drafted(tmp_path, data=[tmp_path / "b.jsonl"])
    first = draft_catalog(tmp_path / "zoo", tmp_path)

    assert catalog.datasets["docs"].texts.path == "b.jsonl"  # type: ignore[union-attr]
    assert "others" not in named.text
    assert "# 60 texts; others are there: b.jsonl" in first.text


def test_draft_catalog__writes_names_that_yaml_would_misread(tmp_path: Path) -> None:
    write(tmp_path / "$zoo: # 1" / "bert", TEXTS)
    write_texts(tmp_path / "yes, no.jsonl")
    draft = draft_catalog(tmp_path / "$zoo: # 1", tmp_path)
    (tmp_path / "data_catalog.yaml").write_text(draft.text)

    catalog = read_catalog(tmp_path / "data_catalog.yaml")

    assert list(catalog.models) == ["bert"]
    assert catalog.datasets["docs"].texts.path == "yes, no.jsonl"  # type: ignore[union-attr]


def test_draft_catalog__refuses_a_folder_without_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "zoo" / "notes").mkdir(parents=True)

    with pytest.raises(DataError, match=r"got no folder with a checkpoint, .*Found notes: it is empty"):
        draft_catalog(tmp_path / "zoo", tmp_path)
    with pytest.raises(DataError, match=r"got no folder with a checkpoint"):
        draft_catalog(tmp_path / "absent", tmp_path)
    with pytest.raises(DataError, match=r"got a path with braces"):
        draft_catalog(tmp_path / "{zoo}", tmp_path)


def test_init__writes_a_catalog_and_never_over_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "zoo" / "bert", TEXTS)
    (tmp_path / "zoo" / "notes").mkdir()
    write_texts(tmp_path / "texts.jsonl")

    assert init(tmp_path, from_=tmp_path / "zoo") == OK
    printed, remarks = capsys.readouterr()
    assert "wrote " in printed
    assert "lfm-atlas validate" in printed
    assert remarks.startswith("notes: it is empty")
    written = (tmp_path / "data_catalog.yaml").read_text()

    with pytest.raises(SystemExit) as caught:
        init(tmp_path, from_=tmp_path / "zoo")
    assert caught.value.code == USAGE
    assert "data_catalog.yaml" in capsys.readouterr().err
    assert (tmp_path / "data_catalog.yaml").read_text() == written


def test_init__refuses_what_it_cannot_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "zoo" / "bert", TEXTS)
    home = tmp_path / "home"

    assert init(home, from_=tmp_path / "absent") == USAGE
    assert "got no folder with a checkpoint" in capsys.readouterr().err
    assert init(home, from_=tmp_path / "zoo", data=[tmp_path / "absent.jsonl"]) == USAGE
    assert "absent.jsonl: got no such file, expected texts or images" in capsys.readouterr().err
    assert init(home, data=[tmp_path]) == USAGE
    assert "got --data without --from" in capsys.readouterr().err
    assert not home.exists()
