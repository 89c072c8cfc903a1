"""Points without a label are in no fold; without classes to learn there is no probe, and a reason."""

import numpy as np

from lfm_tasks.stages.embeddings.stage import _folds


def test_folds__leave_out_points_without_a_label() -> None:
    labels = np.array(["a", "b"] * 10 + [""])
    folds, reason = _folds(labels, seed=0)
    assert reason == ""
    assert folds[-1] == -1
    assert sorted(set(folds[:-1].tolist())) == [0, 1, 2, 3, 4]


def test_no_labels__are_a_reason() -> None:
    folds, reason = _folds(np.array(["", "", ""]), seed=0)
    assert folds.tolist() == [-1, -1, -1]
    assert reason == "got no labels in the dataset, expected classes for a probe. Give it labels"


def test_classes_that_cannot_be_learned__are_a_reason() -> None:
    folds, reason = _folds(np.array(["a", "b", "c"]), seed=0)
    assert folds.tolist() == [-1, -1, -1]
    assert reason
