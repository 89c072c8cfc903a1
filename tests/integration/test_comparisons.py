"""An atlas with comparisons computes what they ask for, with the bits that it would have anyway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from ruamel.yaml import YAML

from lfm_atlas.pipeline import Outcome, build_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.planning import plan_run
from lfm_tasks.report import render_report
from lfm_tasks.report.tables import comparison_tables
from lfm_tasks.runtime.run import Scope
from lfm_tasks.runtime.session import open_run
from lfm_tasks.stages.inventory.stage import validate_catalog
from lfm_tasks.stages.publish.pair_entries import STATUS
from lfm_tasks.stores.atlas.files import read_atlas, read_json

Change = Callable[[dict[str, Any]], None]
COMPARISONS = {
    "first": {"sources": "model0", "targets": ["model1", "model2/layer1"]},
    "within": {"sources": "model1", "targets": "model1", "measures": ["overlap"]},
}


def changed(folder: Path, **keys: Any) -> Path:
    """Change top-level keys of the catalog; those of ``atlas`` are merged."""
    path = folder / "data_catalog.yaml"
    catalog = YAML(typ="safe").load(path)
    catalog["atlas"] |= keys.pop("atlas", {})
    with path.open("w") as file:
        YAML().dump(catalog | keys, file)
    return folder


def run_part(folder: Path, **scope: tuple[str, ...]) -> Outcome:
    catalog = read_catalog(folder / "data_catalog.yaml")
    with open_run(catalog, lambda *_: None, in_process=True, scope=Scope(**scope)) as opened:
        return build_atlas(opened)


def published(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted((folder / "atlas").rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folders(
    tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Any, build: Any
) -> tuple[Path, Path, Outcome]:
    """Give the folder of an atlas of all pairs, of one of comparisons, and what the latter's run came to."""
    everything, chosen = (tmp_path_factory.mktemp(name) for name in ("everything", "chosen"))
    models = related_spaces(4)
    build(write_zoo(everything, models))
    return everything, chosen, build(changed(write_zoo(chosen, models), comparisons=COMPARISONS))


def test_comparisons__cost_the_pairs_that_they_ask_for(folders: tuple[Path, Path, Outcome]) -> None:
    _, chosen, outcome = folders
    catalog = read_catalog(chosen / "data_catalog.yaml")

    # 2 × 3 between models, and 3 within model1; model3 and model2/layer0 are in none.
    assert outcome.computed.items() >= {"activations": 5, "bases": 5, "scores": 9, "maps": 2, "atlas": 1}.items()
    assert outcome.unpublished == ""
    plan = "\n".join(plan_run(catalog, validate_catalog(catalog, lambda *_: None)))
    assert "scores       0 pairs to compute, 9 kept" in plan


def test_comparisons__give_the_bits_of_an_atlas_of_all_pairs(folders: tuple[Path, Path, Outcome]) -> None:
    everything, chosen = (read_atlas(folder / "atlas") for folder in folders[:2])
    same = everything.sel(source=chosen["source"], target=chosen["target"])
    ok = chosen["status"].values == STATUS.index("ok")

    for name in ("score", "calibrated", "null_mean", "null_q95", "p_value", "ci_low", "ci_high"):
        np.testing.assert_array_equal(chosen[name].values[ok], same[name].values[ok])
    assert ok.sum() == 2 * (2 * 6) + 4


def test_cells__are_ok_with_a_number_or_say_why_not(folders: tuple[Path, Path, Outcome]) -> None:
    atlas = read_atlas(folders[1] / "atlas")
    status = atlas["status"].values

    assert set(np.unique(status)) == {STATUS.index("ok"), STATUS.index("not_asked")}
    np.testing.assert_array_equal(np.isfinite(atlas["score"].values), status == STATUS.index("ok"))
    paired = (status == STATUS.index("ok")).any(axis=1)
    np.testing.assert_array_equal(atlas["overlap_share"].values, np.where(paired, 1, np.nan))
    within = atlas["status"].sel(dataset="probe", source="model1/layer0", target="model1/layer1")
    assert [STATUS[code] for code in within.sel(measure=["lfm", "overlap"]).values] == ["not_asked", "ok"]


def test_edges__name_the_comparisons_of_each_row(folders: tuple[Path, Path, Outcome]) -> None:
    rows = pyarrow.parquet.read_table(folders[1] / "atlas" / "edges.parquet").to_pylist()
    found = {(row["source"], row["target"], row["measure"]): row["comparisons"] for row in rows}

    assert found["model0/layer0", "model1/layer0", "lfm"] == ["first"]
    assert found["model1/layer0", "model0/layer0", "lfm"] == []
    assert found["model1/layer0", "model1/layer1", "overlap"] == ["within"]
    assert ("model1/layer0", "model1/layer1", "lfm") not in found
    assert len(rows) == 2 * 12 + 2
    summary = read_json(folders[1] / "atlas" / "summary.json")
    assert summary["counts"]["directed_pairs"] == 14
    assert summary["comparisons"]["first"]["targets"] == ["model1/layer0", "model1/layer1", "model2/layer1"]


def test_glob_of_layers_that_fits_none__is_a_failure_before_anything_is_computed(
    tmp_path: Path, related_spaces: Any, write_zoo: Any
) -> None:
    wrong = {"sources": "model0/layr1", "targets": ["model1", "!model1/*"]}
    folder = changed(write_zoo(tmp_path, related_spaces(2)), comparisons={"wrong": wrong})
    zoo = validate_catalog(read_catalog(folder / "data_catalog.yaml"), lambda *_: None)

    found = {failure.model: failure.message for failure in zoo.failures}
    assert found["comparisons.wrong.sources"].startswith("no space matches 'model0/layr1'; did you mean 'model0/layer1")
    assert found["comparisons.wrong.targets"] == "of 4 spaces none is left. Remove a pattern with !"
    assert {failure.reason for failure in zoo.failures} == {"unknown_layer"}


def test_layers_of_a_model_that_does_not_open__are_not_called_missing(
    tmp_path: Path, related_spaces: Any, write_zoo: Any
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    changed(folder, comparisons={"one": {"sources": "model0/layer0", "targets": "model1"}})
    (folder / "model0.npz").unlink()

    zoo = validate_catalog(read_catalog(folder / "data_catalog.yaml"), lambda *_: None)

    assert [failure.model for failure in zoo.failures] == ["model0"]


def test_part_of_a_catalog__is_computed_and_kept_but_replaces_no_atlas(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Any
) -> None:
    folder = write_zoo(tmp_path, related_spaces(3))
    build(folder)
    before = published(folder)
    changed(folder, atlas={"n_eigenpairs": 7})

    part = run_part(folder, only=("model0",))

    assert part.computed.items() >= {"activations": 0, "bases": 2, "scores": 3, "atlas": 0}.items()
    assert part.unpublished == (
        "4 spaces and 0 pairs of the others are not computed yet, so the published atlas stays as it is. "
        "Run all of the catalog"
    )
    assert not part.is_new
    assert published(folder) == before
    whole = build(folder)
    assert whole.computed.items() >= {"activations": 0, "bases": 4, "scores": 18, "maps": 3, "atlas": 1}.items()
    assert published(folder) != before


def test_comparisons_one_after_the_other__end_in_the_atlas_of_all(
    tmp_path: Path, folders: tuple[Path, Path, Outcome], related_spaces: Any, write_zoo: Any, build: Any
) -> None:
    folder = changed(write_zoo(tmp_path, related_spaces(4)), comparisons=COMPARISONS)

    first = run_part(folder, comparisons=("first",))
    assert first.unpublished.startswith("0 spaces and 3 pairs of the others are not computed yet")
    assert not (folder / "atlas").exists()
    second = run_part(folder, comparisons=("within",))

    assert second.unpublished == ""
    assert second.is_new
    assert list(published(folder).values()) == list(published(folders[1]).values())
    assert not build(folder).is_new


def test_fewer_measures_than_are_stored__cost_nothing(
    tmp_path: Path, related_spaces: Any, write_zoo: Any, build: Any
) -> None:
    models = related_spaces(3)
    folder = write_zoo(tmp_path / "more", models, measures=["cka_linear", "lfm", "overlap"])
    assert build(folder).computed["scores"] == 21

    fewer = build(changed(folder, atlas={"measures": ["overlap", "cka_linear"]}))

    assert (fewer.computed["bases"], fewer.computed["scores"], fewer.computed["atlas"]) == (0, 0, 1)
    build(write_zoo(tmp_path / "fewer", models, measures=["overlap", "cka_linear"]))
    assert list(published(folder).values()) == list(published(tmp_path / "fewer").values())
    catalog = read_catalog(folder / "data_catalog.yaml")
    assert "0 pairs to compute, 21 kept" in "\n".join(plan_run(catalog, validate_catalog(catalog, lambda *_: None)))

    one = {"sources": "model0", "targets": "model1", "measures": ["lfm"]}
    part = build(changed(folder, comparisons={"one": one}))
    assert (part.computed["bases"], part.computed["scores"], part.computed["atlas"]) == (0, 0, 1)
    other = build(changed(folder, comparisons={"one": one | {"measures": ["lfm", "cka_linear_debiased_song"]}}))
    assert other.computed["scores"] == 4  # no block holds both
    assert other.failures == ()


def test_scope__of_names_that_the_catalog_does_not_have_is_told(folders: tuple[Path, Path, Outcome]) -> None:
    everything, chosen = (read_catalog(folder / "data_catalog.yaml") for folder in folders[:2])

    assert Scope(("model*",), ("first",)).problems(chosen) == []
    assert Scope(("modle1",), ("frist",)).problems(chosen) == [
        "--only: no model matches 'modle1'; did you mean 'model1' or 'model3' or 'model2'?",
        "--comparison: no 'frist'; did you mean 'first'?",
    ]
    assert Scope((), ("first",)).problems(everything) == ["--comparison: no 'first'; the catalog has no comparisons"]


def test_report__shows_each_comparison_with_its_most_alike_pairs(folders: tuple[Path, Path, Outcome]) -> None:
    everything, chosen = ((folder / "atlas" / "report.html").read_text() for folder in folders[:2])
    atlas = read_atlas(folders[1] / "atlas")

    first, within = comparison_tables(atlas)

    assert 'id="comparisons"' not in everything
    section = chosen.split('<h2 id="comparisons">')[1].split("</section>")[0]
    assert section.count("<tr>") == 2 + 5 + 1
    assert (
        "<h3>first</h3>\n<p>2 sources × 3 targets on probe, by <code>lfm</code>, <code>overlap</code>.</p>" in section
    )
    assert [len(table["best"]) for table in (first, within)] == [5, 1]
    values = atlas["calibrated"].sel(
        dataset="probe", measure="overlap", source=["model0/layer0", "model0/layer1"],
        target=["model1/layer0", "model1/layer1", "model2/layer1"],
    )  # fmt: skip
    assert [row["calibrated"] for row in first["best"]] == sorted(values.values.ravel(), reverse=True)[:5]
    for row in first["best"]:
        assert f'<th scope="row">{row["source"]}</th><td>{row["target"]}</td>' in section


def test_report__of_comparisons_without_values_is_drawn_and_names_stay_text(
    folders: tuple[Path, Path, Outcome],
) -> None:
    atlas, summary = read_atlas(folders[1] / "atlas"), read_json(folders[1] / "atlas" / "summary.json")
    attack = "</h3><img src=x>"
    facts = atlas.attrs["comparisons"]["within"] | {"sources": [], "measures": [attack]}
    names = ("score", "calibrated", "q_value")
    empty = atlas.assign({name: atlas[name].where(atlas["measure"] != "overlap") for name in names})
    attacked = empty.assign_attrs(atlas.attrs | {"comparisons": {attack: facts}})

    page = render_report(attacked, summary)

    assert "<img" not in page
    assert "&lt;/h3&gt;&lt;img src=x&gt;" in page
    assert "No two models are compared by <code>overlap</code>." in page
    assert "No pair of two different spaces has a calibrated value" in page
