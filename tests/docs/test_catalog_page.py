"""The catalog of docs/catalog.md is one, and leaves no key out."""

import re
from pathlib import Path

from pydantic import BaseModel

from lfm_tasks.catalog import datasets, models, read_catalog, sections
from lfm_tasks.catalog.comparisons import chosen_models
from lfm_tasks.checks import check_classes
from lfm_tasks.stages.inventory.requests import unknown_measures

PAGE = (Path(__file__).parents[2] / "docs/catalog.md").read_text(encoding="utf-8")


def test_page__shows_a_catalog_that_is_read(tmp_path: Path) -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "data_catalog.yaml"
    path.write_text(example)
    arrived = tmp_path / "arrivals" / "swin" / "block1.npy"
    arrived.parent.mkdir(parents=True)
    arrived.touch()

    catalog = read_catalog(path, {})

    assert list(catalog.models) == [
        *("bert", "resnet", "minilm-onnx", "deit-onnx", "encoder-onnx", "vit"),
        *("clip-text", "adapter", "minilm", "wide", "half-done", "two-eyed", "swin"),
    ]
    assert unknown_measures(catalog) == []
    assert chosen_models(catalog.comparisons["text-vision"].targets, catalog.model_facts()) == ["resnet", "vit", "swin"]
    assert catalog.model_on("swin").activations is not None
    assert catalog.model_on("swin").activations.pool == "mean"


def test_page__names_every_key() -> None:
    values = [*vars(datasets).values(), *vars(models).values(), *vars(sections).values(), *check_classes().values()]
    kinds = [kind for kind in values if isinstance(kind, type) and issubclass(kind, BaseModel)]
    # Clusters other than the local one have a page of their own.
    read = [kind for kind in kinds if kind not in (sections.Catalog, sections.Trust, sections.AddressCluster)]
    keys = {key for kind in read for key in kind.model_fields}

    assert len(keys) > 40
    assert sorted(key for key in keys if not re.search(rf"\b{key}:", PAGE)) == []
