"""Labels of points, as text."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.sources.datasets import DatasetRows


def text_labels(rows: DatasetRows) -> dict[str, str]:
    """Return id → label of a dataset; NaN is none, and so is the empty text."""
    if rows.labels is None:
        return {}
    texts = ("" if value != value else str(value) for value in rows.labels.tolist())
    return {str(name): text for name, text in zip(rows.ids, texts, strict=True) if text}


def labels_of(ids: Shaped[np.ndarray, " points"], labels: Mapping[str, str]) -> Shaped[np.ndarray, " points"]:
    """Return the label of each id, "" where there is none."""
    return np.array([labels.get(str(name), "") for name in ids], dtype=object)
