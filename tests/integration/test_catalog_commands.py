"""``lfm-atlas catalog show`` and ``schema``."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import read_catalog
from lfm_tasks.catalog.reading import catalog_yaml
from lfm_tasks.catalog.yaml_tree import read_tree, to_builtins

SHIPPED = Path(__file__).parents[2] / "data_catalog.yaml"

CATALOG = """
version: 1
x-note: &globs ["*", "!*.norm"]
datasets:
  probe: {ids: {path: "${DATA:-here}/ids.npy"}, labels: {path: labels.npy, storage: lab}}
  late: {ids: positional}
defaults:
  activations: {pool: mean, dataset: probe}
models:
  zebra:
    activations: {path: "{model}.npz", key: "{layer}", storage: lab}
    layers: *globs
    meta: {base_model: "no", score: 1.5, family: ["1e3", "0x10", null, true, "2020-01-01"], note: "$${x}: \\u00e9\\n#"}
  aardvark:
    activations: {path: "$${model}.npz", dataset: late, dtype: float16}
discover:
  found:
    activations: {path: "zoo/{model}.npz", key: "{layer}"}
    meta: {arrived: true}
comparisons:
  both: {sources: "z*", targets: {meta: {arrived: true}}, measures: [lfm]}
atlas: {n_eigenpairs: 8, max_points: 50}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "zoo").mkdir()
    for name in ("one", "two"):
        np.savez(tmp_path / "zoo" / f"{name}.npz", layer=np.ones((3, 2)))
    (tmp_path / "data_catalog.yaml").write_text(CATALOG)
    return tmp_path / "data_catalog.yaml"


def test_show__is_a_catalog_that_says_the_same(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LFM_ATLAS_STORAGE_LAB", '{"secret": "hunter2"}')
    before = read_catalog(path)

    assert app(["catalog", "show", str(path)], result_action="return_value") == 0

    shown = capsys.readouterr().out
    path.write_text(shown, encoding="utf-8")
    after = read_catalog(path)
    assert list(after.models) == ["zebra", "aardvark", "one", "two"]
    for name in ("models", "datasets", "comparisons", "atlas", "cluster"):
        assert getattr(after, name) == getattr(before, name)
    assert catalog_yaml(after) == catalog_yaml(before)
    for word in ("x-note", "defaults", "discover", "hunter2"):
        assert word not in shown
    assert "storage: lab" in shown
    assert "here/ids.npy" in shown


MAPS = """
comparisons:
  closed: {sources: one, targets: two, maps: {regime: anchors, anchors: {ids: {path: a.txt}}, refine: none}}
  mask: {sources: one, targets: two, maps: {regime: labels, refine: none, mask: commutativity}}
  drawn: {sources: one, targets: two, maps: {regime: anchors, anchors: {count: 5, seed: 2}, n_samples: 70}}
  known: {sources: one, targets: two, maps: {regime: full}}
atlas: {maps: {regime: unsupervised, n_samples: 60}, collection: null, null: {n_refined: 3}, keep_maps: none}
"""


def test_show__keeps_every_setting_of_maps_and_what_is_switched_off(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(CATALOG[: CATALOG.index("comparisons:")] + MAPS, encoding="utf-8")
    before = read_catalog(path)

    app(["catalog", "show", str(path)], result_action="return_value")

    path.write_text(capsys.readouterr().out, encoding="utf-8")
    after = read_catalog(path)
    assert after.atlas == before.atlas
    assert after.atlas.collection is None
    assert after.comparisons == before.comparisons


def test_show__of_the_shipped_catalog_fits_the_schema(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["catalog", "show", str(SHIPPED)], result_action="return_value")
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out)
    tree, problems = read_tree(tmp_path / "shown.yaml")

    app(["catalog", "schema"], result_action="return_value")

    schema = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(to_builtins(tree), schema)
    jsonschema.validate(to_builtins(read_tree(SHIPPED)[0]), schema)
    assert problems == []
    assert read_catalog(tmp_path / "shown.yaml").models == read_catalog(SHIPPED).models


def test_show__tells_patterns_that_match_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(CATALOG.replace("zoo/{model}", "{model}/late").partition("comparisons:")[0], encoding="utf-8")

    assert app(["catalog", "show", str(path)], result_action="return_value") == 0

    assert "discover.found: nothing matches '{model}/late.npz' yet" in capsys.readouterr().err


def test_show__of_a_wrong_catalog_says_what_is_wrong(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_text(CATALOG.replace("models:", "modles:"), encoding="utf-8")

    with pytest.raises(SystemExit, match="2"):
        app(["catalog", "show", str(path)], result_action="return_value")

    assert "did you mean 'models'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["validate"], ["validate", "--deep"], ["plan"]])
def test_validate_and_plan__tell_patterns_that_match_nothing(
    path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_text(CATALOG.replace("zoo/{model}", "{model}/late").partition("comparisons:")[0], encoding="utf-8")

    app([command[0], str(path), *command[1:]], result_action="return_value")

    printed = capsys.readouterr()
    assert "discover.found: nothing matches '{model}/late.npz' yet" in printed.out + printed.err


def test_validate__counts_the_same_spaces_with_and_without_deep(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog = write_zoo(tmp_path, related_spaces(3)) / "data_catalog.yaml"
    said = []
    for comparisons in ("", "comparisons: {one: {sources: model0/layer0, targets: model1}}\n"):
        catalog.write_text(catalog.read_text() + comparisons)
        for command in (["validate"], ["validate", "--deep"]):
            assert app([*command, str(catalog)], result_action="return_value") == 0
            said.append(capsys.readouterr().out.splitlines()[-1])

    assert said == [
        "3 models, 6 spaces, 0 cannot be used",
        "3 models, 6 spaces read, 0 problems",
        "3 models, 6 spaces, 3 of them in comparisons, 0 cannot be used",
        "3 models, 6 spaces read, 3 of them in comparisons, 0 problems",
    ]
