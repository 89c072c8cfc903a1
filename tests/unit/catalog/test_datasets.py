"""What a dataset may hold: numbers or raw inputs, each row with a name; and which models run on which."""

from pathlib import Path

import pytest

from lfm_tasks.catalog import Catalog, CatalogError, Dataset, DatasetFile, catalog_yaml, read_catalog

TEXTS = "{path: t.jsonl, text: body, id: key, label: topic}"
IMAGES = '{path: "images/*/*.png", label: folder}'


def read(folder: Path, dataset: str, model: str = "activations: {path: a.npy, dataset: probe}") -> Catalog:
    path = folder / "data_catalog.yaml"
    path.write_text(f"version: 1\ndatasets:\n  probe: {dataset}\nmodels:\n  m:\n    {model}\n")
    return read_catalog(path, {})


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        (f"{{texts: {TEXTS}}}", "texts"),
        (f"{{images: {IMAGES}}}", "images"),
        ("{texts: {path: lines.txt}}", "texts"),
        ("{texts: {path: lines.txt, id: positional}, labels: {path: l.npy}, strata: labels}", "texts"),
        ("{texts: {path: saved, id: positional, split: test}, groups: {path: g.npy}}", "texts"),
        ('{texts: {path: "data/train-*.parquet", id: id}}', "texts"),
        ("{images: {path: photos.parquet, id: name, label: class}, strata: labels}", "images"),
        ("{images: {path: photos.npz, image: x, id: {path: photos.npz, key: ids}, label: {path: l.npy}}}", "images"),
        ("{builtin: digits}", "numbers"),
        ("{ids: positional, inputs: {path: i.npy}}", "numbers"),
        ("{ids: positional}", "nothing"),
    ],
)
def test_dataset__is_read_and_reads_the_same_once_written(dataset: str, kind: str, tmp_path: Path) -> None:
    catalog = read(tmp_path, dataset)
    assert catalog.datasets["probe"].kind == kind
    (tmp_path / "data_catalog.yaml").write_text(catalog_yaml(catalog))
    assert read_catalog(tmp_path / "data_catalog.yaml", {}).datasets == catalog.datasets


MISTAKES = {
    "two origins": (f"{{texts: {TEXTS}, images: {IMAGES}}}", "got both of texts and images, expected one"),
    "three origins": (
        f"{{texts: {TEXTS}, images: {IMAGES}, ids: positional}}",
        "got all of texts and images and ids",
    ),
    "ids beside": (f"{{texts: {TEXTS}, ids: {{path: i.npy}}}}", "got both of texts and ids, expected one"),
    "inputs beside": (
        f"{{texts: {TEXTS}, inputs: {{path: i.npy}}}}",
        "got inputs beside texts, expected one: each model",
    ),
    "labels twice": (f"{{texts: {TEXTS}, labels: {{path: l.npy}}}}", "got labels beside texts.label, expected one of"),
    "no labels": ("{texts: {path: t.txt}, strata: labels}", "got strata: labels, but no labels"),
    "no id": (
        "{texts: {path: t.jsonl}}",
        "texts: got no id, expected the column of the ids: id: id, or id: positional",
    ),
    "columns of lines": (
        "{texts: {path: t.txt, text: x}}",
        "texts: got columns of a .txt file, which has a text a line",
    ),
    "split of shards": (
        '{texts: {path: "t/*.csv", id: id, split: a}}',
        "got a glob with storage or split, expected files",
    ),
    "remote shards": ('{images: {path: "s3://b/*.png", storage: lab}}', "got a glob with storage or split, expected"),
    "id of files": (
        '{images: {path: "i/*.png", id: name}}',
        "images: got id beside a glob, whose files are named by",
    ),
    "no id of rows": ("{images: {path: i.parquet}}", "images: got no id, expected the column of the ids"),
    "no id of pixels": ("{images: {path: i.npy}}", "images: got no file of ids for an array, expected one"),
    "column of pixels": ("{images: {path: i.npy, id: name}}", "images: got no file of ids for an array, expected one"),
    "label of files": (
        '{images: {path: "i/*.png", label: x}}',
        "got the column 'x' as label, and images that are in no",
    ),
    "label of pixels": ("{images: {path: i.npy, id: positional, label: folder}}", "got the column 'folder' as label"),
    "unknown key": ("{texts: {path: t.jsonl, id: id, column: x}}", "texts.column: unknown key"),
    "not a path": ("{texts: t.jsonl}", "texts: got the text 't.jsonl', expected a mapping such as"),
    "field": ('{texts: {path: "{model}.jsonl", id: id}}', "got {model}, expected one of {dataset}"),
    "secret": ("{texts: {path: 'https://me:pass@host/t.jsonl', id: id}}", "got an address with a user or a query"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake__is_told_with_its_line(case: str, tmp_path: Path) -> None:
    dataset, message = MISTAKES[case]
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, dataset)
    assert message in str(caught.value)
    assert all(problem.line == 3 for problem in caught.value.problems)


NETWORKS = {
    "numbers": (
        "{builtin: digits}",
        "transformers: {path: m, dataset: probe}",
        "the dataset 'probe' holds numbers, expected",
    ),
    "nothing": (
        "{ids: positional}",
        "timm: {path: m, dataset: probe}",
        "the dataset 'probe' holds no inputs, expected texts",
    ),
    "texts": (
        f"{{texts: {TEXTS}}}",
        'torch: {factory: "a.b:c", dataset: probe}',
        "the dataset 'probe' holds texts, which torch cannot prepare, expected numbers. Give it a dataset with inputs",
    ),
    "images": (
        f"{{images: {IMAGES}}}",
        'torch: {factory: "a.b:c", dataset: probe}',
        "'probe' holds images, which torch",
    ),
    "no inputs": (
        "{ids: positional}",
        "onnx: {path: m.onnx, dataset: probe}",
        "'probe' has no inputs to run the model on",
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_network__needs_inputs_that_it_can_prepare(case: str, tmp_path: Path) -> None:
    dataset, model, message = NETWORKS[case]
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, dataset, model)
    [problem] = caught.value.problems
    assert (problem.line, message in problem.message) == (6, True), problem


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("path: s3://b/m", "got a remote path, expected a folder of this machine. Copy the checkpoint"),
        ("path: m, base: hf://a/b", "got a remote base, expected a folder of this machine"),
        ("path: m, points: tokens, pool: mean", "got pool: mean beside points: tokens, expected none"),
        ("path: m, device: gpu", "got the device 'gpu', expected auto, cpu, cuda, cuda:0 or mps"),
        ("path: m, dtype: int8", "got the text 'int8', expected 'auto', 'float32', 'bfloat16' or 'float16'"),
        ("path: m, batch_size: 0", "got the number 0, expected >= 1"),
        ("path: m, max_token: 4", "unknown key; did you mean 'max_tokens'?"),
    ],
)
def test_checkpoint_that_cannot_be_meant__is_refused(settings: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, f"{{texts: {TEXTS}}}", f"transformers: {{{settings}, dataset: probe}}")
    assert message in str(caught.value)
    assert caught.value.problems[0].line == 6


def test_names_of_rows__are_more_than_their_numbers() -> None:
    named = [
        {"ids": {"path": "ids.npy"}},
        {"builtin": "digits"},
        {"texts": {"path": "a.jsonl", "id": "id"}},
        {"images": {"path": "images/*.png"}},
    ]
    numbered = [
        {"ids": "positional"},
        {"texts": {"path": "a.TXT"}},
        {"texts": {"path": "a.csv", "id": "positional"}},
        {"images": {"path": "a.npy", "id": "positional"}},
    ]
    assert all(Dataset.model_validate(content).has_names for content in named)
    assert not any(Dataset.model_validate(content).has_names for content in numbered)


def test_a_key_and_columns__name_two_things() -> None:
    with pytest.raises(ValueError, match="got key and columns, expected one"):
        DatasetFile.model_validate({"path": "a.csv", "key": "x", "columns": ["f*"]})
    assert DatasetFile.model_validate({"path": "rows_{shard}.csv", "columns": ["f*"]}).columns == ("f*",)
