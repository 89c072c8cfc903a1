"""What a map is fitted on and judged by: large spaces by some of their points, heads by class numbers."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.session import open_run
from lfm_tasks.sources.opening import DatasetRows
from lfm_tasks.spaces import Space
from lfm_tasks.stages.transfers import job
from lfm_tasks.stages.transfers.job import (
    AnchorSpec,
    ClassLabels,
    LabeledHead,
    choose_anchors,
    class_labels,
    open_stitching,
)
from lfm_tasks.stages.transfers.named import fit_named_map
from lfm_tasks.zoo import write_start

IDS = np.array(["d", "a", "c", "b"])
SORTED_IDS = np.array([f"p{index:02}" for index in range(20)], dtype=np.dtypes.StringDType())


def fitted(folder: Path, source: str, target: str, anchor_spec: AnchorSpec) -> Any:
    catalog = read_catalog(folder / "data_catalog.yaml")
    with open_run(catalog, lambda *_: None, in_process=True) as run:
        return fit_named_map(run, source, target, anchor_spec)


def refusal(reason: str, message: str, act: object) -> None:
    with pytest.raises(DataError, match=message) as caught:
        act()  # type: ignore[operator]
    assert caught.value.reason == reason


def test_large_spaces__are_represented_by_some_points_and_all_anchors(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zoo(tmp_path, related_spaces(2))
    monkeypatch.setattr(job, "MAX_POINTS", 60)
    facts = fitted(tmp_path, "model0/layer0", "model1/layer0", AnchorSpec("anchors", 12)).facts

    assert facts["n_common"] == 120
    assert facts["n_anchors"] == 12
    assert all(60 <= n_points <= 72 for n_points in facts["n_points"])
    assert max(row["accuracy"] for row in facts["table"]) > 0.2


def test_map__between_partly_other_samples_is_judged_on_the_common_ones(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    models = related_spaces(2)
    layers, ids = models["model1"]
    kept = ids < "p090"
    models["model1"] = ({name: rows[kept] for name, rows in layers.items()}, ids[kept])
    write_zoo(tmp_path, models)
    facts = fitted(tmp_path, "model0/layer0", "model1/layer0", AnchorSpec("anchors", 12)).facts

    assert (facts["n_points"], facts["n_common"]) == ([120, 90], 90)
    assert max(row["mrr"] for row in facts["table"]) > 0.3


def test_space__that_cannot_be_used_is_named(
    tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    models = related_spaces(2)
    models["model1"][0]["layer0"][3] = 0
    write_zoo(tmp_path, models, graph={"n_neighbors": 10, "center": False})
    with pytest.raises(DataError, match="model1/layer0: got 1 all-zero row"):
        fitted(tmp_path, "model0/layer0", "model1/layer0", AnchorSpec())


def test_drawn__are_common_ids_that_do_not_depend_on_what_else_there_is() -> None:
    few = SORTED_IDS[3:]
    spec = AnchorSpec("anchors", 5, seed=1)
    whole, part = choose_anchors(spec, SORTED_IDS, SORTED_IDS), choose_anchors(spec, SORTED_IDS, few)
    names, others = SORTED_IDS[whole.source].tolist(), SORTED_IDS[part.source].tolist()

    assert names == SORTED_IDS[whole.target].tolist()
    assert others == few[part.target].tolist()
    assert set(names) - set(SORTED_IDS[:3].tolist()) <= set(others)
    assert names != SORTED_IDS[choose_anchors(AnchorSpec("anchors", 5, seed=2), SORTED_IDS, SORTED_IDS).source].tolist()
    refusal("few_anchors", "got 17 common ids, expected the 18 requested anchors among them", lambda: choose_anchors(
        AnchorSpec("anchors", 18), SORTED_IDS, few
    ))  # fmt: skip


def test_named__are_rows_of_both_spaces_and_unknown_ones_are_refused() -> None:
    pairs = (("p01", "p05"), ("p02", "p19"), ("p03", "p04"))
    anchors = choose_anchors(AnchorSpec(pairs=pairs), SORTED_IDS, SORTED_IDS[4:])
    assert anchors.source.tolist() == [1, 2, 3]
    assert anchors.target.tolist() == [1, 15, 0]
    wrong = AnchorSpec(pairs=(*pairs, ("p04", "q05")))
    refusal("bad_anchors", "got 1 of 4 anchors that the target space does not have, first 'q05'; did you", lambda: (
        choose_anchors(wrong, SORTED_IDS, SORTED_IDS[4:])
    ))  # fmt: skip


def test_labels__are_found_by_id() -> None:
    labels = class_labels(DatasetRows(IDS, np.array([7, 2, 7, 3])))
    assert labels is not None
    assert labels.names.tolist() == [2, 3, 7]
    assert labels.names[labels.of(np.array(["a", "b", "c", "d"]))].tolist() == [2, 3, 7, 7]
    assert labels.of(np.array(["x", "a"])).tolist() == [-1, 0]
    assert class_labels(DatasetRows(IDS)) is None
    assert labels.key != ClassLabels(labels.ids, labels.classes, labels.names + 1).key


def test_accuracy__holds_outputs_against_class_numbers_where_there_are_some() -> None:
    labels = class_labels(DatasetRows(IDS, np.array([2, 0, 2, 1])))
    assert labels is not None
    head: Any = SimpleNamespace(apply=lambda rows: rows)
    rows = np.array([[9.0, 0, 0], [0, 0, 9], [0, 0, 9], [9, 0, 0]])
    assert LabeledHead(head, labels).accuracy(rows, np.array(["a", "b", "c", "unknown"])) == pytest.approx(2 / 3)
    assert np.isnan(LabeledHead(head, labels).accuracy(rows[:1], np.array(["unknown"])))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "got no labels in the dataset digits. Add labels to it"),
        (np.array(["cat", "dog", "cat", "dog"]), "got labels of type <U3, expected class numbers from 0"),
        (np.array([-1, 0, 1, 0]), "expected class numbers from 0, as the head's outputs are. Number them"),
    ],
)
def test_stitching__needs_labels_that_number_the_outputs(
    tmp_path: Path, labels: np.ndarray | None, message: str
) -> None:
    write_start(tmp_path)
    catalog = read_catalog(tmp_path / "data_catalog.yaml")
    with pytest.raises(DataError, match=message):
        open_stitching(Space("digits", "mlp_s0", "relu4"), catalog, class_labels(DatasetRows(IDS, labels)))
