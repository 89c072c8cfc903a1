"""What every source of activations can do, whether a file is read or a model is recorded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int, Shaped


class Source(Protocol):
    """Activations of one model on one dataset, layer by layer, read in batches of rows.

    Opening a source is cheap: it reads headers, not data. Errors are `ReasonError`s.
    """

    @property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """Sample ids (strings), one for each row, in the source's own order; unique."""
        ...

    def layer_names(self) -> tuple[str, ...]:
        """All layers there are, in the model's order (first to last)."""
        ...

    def identity(self, layer: str) -> Mapping[str, str]:
        """Return what decides the values of ``layer``: digests of files, pooling, versions. Never a path or a time."""
        ...

    def batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"]
    ) -> Iterator[Mapping[str, Float[np.ndarray, "batch features"]]]:
        """Yield ``rows`` of each layer, in the order asked for, pooled to (batch, features), float32 or float64."""
        ...
