"""Batches, pooling and checks of outputs that all recorders of networks share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.pooling import check_finite, pool_rows, pooled_features
from lfm_tasks.sources.networks.inputs import InputBatch, NetworkInputs
from lfm_tasks.sources.source import Source

# Part of every identity. Raise it when the same model and inputs give other numbers.
RECORDER_VERSION = "1"
# A row that is computed again among others may differ by this share of a row's length. Sums in another order make 1e-6,
# half precision and quantized weights up to 1e-3; dropout, batch statistics and random numbers make more than .05.
REPEAT_TOLERANCE = 0.01
_N_REPEATED = 3

Pooled = Mapping[str, Float[np.ndarray, "batch features"]]


@runtime_checkable
class RecordedSource(Source, Protocol):
    """A `Source` that runs a network: costly to start again, and it knows its shapes before pooling."""

    @property
    def batch_rows(self) -> int:
        """Rows that are computed together; a recording that goes on does so at a multiple of it, for the same bits."""
        ...

    def layer_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Return the shape of one point in each layer, before pooling; None where only a run can tell."""
        ...


@runtime_checkable
class ScatteredSource(RecordedSource, Protocol):
    """A `RecordedSource` whose batches come in an order of their own, such as texts by their lengths."""

    def scattered_batches(
        self, layers: Sequence[str], rows: Int[np.ndarray, " selected"], start: int = 0
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Pooled]]:
        """Yield batches as they are computed: the positions in ``rows`` that they hold, and each layer's values.

        ``start``: how many batches to leave out at the start.
        """
        ...

    def notes(self) -> tuple[str, ...]:
        """Return sentences for people on what was recorded, such as how many texts were cut."""
        ...

    def check_unchanged(self) -> None:
        """Raise DataError ``missing_source`` if a file is another one than when `identity` was first requested."""
        ...


def gathered(
    batches: Iterator[tuple[Int[np.ndarray, " batch"], Pooled]], n_rows: int
) -> Iterator[Mapping[str, Float[np.ndarray, "rows features"]]]:
    """Yield the values of scattered batches once, all rows in their order; nothing where there are no batches.

    Parameters
    ----------
    batches
        What `ScatteredSource.scattered_batches` yields.
    n_rows
        How many rows these batches hold together.
    """
    rows: dict[str, Float[np.ndarray, "rows features"]] = {}
    for positions, values in batches:
        for layer, batch in values.items():
            if layer not in rows:
                rows[layer] = np.empty((n_rows, batch.shape[1]), dtype=batch.dtype)
            rows[layer][positions] = batch
    if rows:
        yield rows


# Reasons of errors that are the network's as a whole: no layer of it is tried alone.
OF_THE_NETWORK = frozenset(
    {
        "missing_source",
        "damaged_source",
        "unsupported_model",
        "untrusted_code",
        "bad_factory",
        "bad_weights",
        "bad_inputs",
        "missing_package",
        "no_tower",
        "no_processor",
    }
)


@dataclass(frozen=True)
class Recorder:
    """The inputs of a network, and what is recorded of it; ``name`` is how messages call the network.

    ``fills``: the network takes ``batch_rows`` rows and no other number, so that the last batch is filled up.
    """

    name: str
    inputs: NetworkInputs
    ids: Shaped[np.ndarray, " points"]
    pool: str
    batch_rows: int
    fills: bool = False

    def __post_init__(self) -> None:
        if self.inputs.n_rows != len(self.ids):
            problem = f"got {self.inputs.n_rows} inputs and {len(self.ids)} ids, expected one id an input"
            raise DataError("bad_ids", f"{self.name}: {problem}. Give the ids of these inputs")

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Ingredients of the values' key beside the network and the library that runs it."""
        return {
            **self.inputs.identity,
            "pool": self.pool,
            "batch_size": str(self.batch_rows),
            "recorder": RECORDER_VERSION,
        }

    def record(
        self, rows: Int[np.ndarray, " selected"], run: Callable[[Int[np.ndarray, " batch"]], Pooled]
    ) -> Iterator[Pooled]:
        """Yield ``rows`` in their order, as many as are computed together; a few are computed twice.

        Parameters
        ----------
        rows
            Which rows.
        run
            Returns the layers of a batch of rows, pooled.

        Raises
        ------
        DataError
            ``not_a_function`` if a row is another one among other rows, or the second time; and as ``run`` does.
        """
        for start in range(0, len(rows), self.batch_rows):
            batch = rows[start : start + self.batch_rows]
            pooled = run(batch)
            if not start:
                self._check_repeats(pooled, batch, run)
            yield pooled

    def input_batch(self, rows: Int[np.ndarray, " batch"]) -> InputBatch:
        """Return the inputs of ``rows``, filled up with the first of them where the network takes a fixed number."""
        return self.inputs.batch(np.resize(rows, self.batch_rows) if self.fills else rows)

    def row_names(self, rows: Int[np.ndarray, " batch"]) -> list[str]:
        """Return how messages call these rows."""
        return [f"row {row} (id {self.ids[row]!s})" for row in rows]

    def check_pooling(self, layer: str, shape: Sequence[int | None], *, is_last: bool = False) -> None:
        """Raise DataError if the pooling does not fit a layer whose points have ``shape``; see `maps_shape`."""
        if self.inputs.has_mask and len(shape) > 1 and self.pool == "flatten":
            problem = "got pool: flatten beside a mask, which would keep padded tokens"
            raise DataError("wrong_shape", f"{self.name}: {problem}. Pool the tokens, or remove the mask")
        if None in shape:
            return  # the first batch tells
        try:
            pooled_features([length or 0 for length in shape], self.pool, shape=maps_shape(len(shape) + 1, is_last))
        except DataError as error:
            raise DataError(error.reason, f"{self.name}: {layer}: {error}") from error

    def pooled(
        self,
        layer: str,
        values: Shaped[np.ndarray, "..."],
        rows: Int[np.ndarray, " batch"],
        inputs: InputBatch,
        *,
        is_last: bool = False,
    ) -> Float[np.ndarray, "batch features"]:
        """Return the pooled output of ``layer`` for ``rows``, as a copy; DataError if it cannot be used.

        ``is_last``: of maps, whether their channels come last.
        """
        n_rows = self.batch_rows if self.fills else len(rows)
        if values.ndim < 2 or len(values) != n_rows:
            problem = f"got {values.shape} for {n_rows} points, expected a row a point"
            raise DataError("wrong_shape", f"{self.name}: {layer}: {problem}. Leave it out with layers: ['!{layer}']")
        values = values[: len(rows)]
        mask = None if inputs.valid is None or values.ndim == 2 else inputs.valid[: len(rows)]
        if mask is not None and values.shape[:2] != mask.shape:
            problem = f"got {values.shape} and a mask of {mask.shape}, expected (points, tokens, features)"
            raise DataError("wrong_shape", f"{self.name}: {layer}: {problem}. Leave it out: layers: ['!{layer}']")
        try:
            pooled = pool_rows(values, self.pool, shape=maps_shape(values.ndim, is_last), mask=mask)
        except DataError as error:
            raise DataError(error.reason, f"{self.name}: {layer}: {error}") from error
        check_finite(pooled, rows, self.ids, name=f"{self.name}: {layer}", advice="Leave the layer out")
        # A network may go on to overwrite what it gave.
        return pooled.copy() if np.may_share_memory(pooled, values) else pooled

    def _check_repeats(
        self, first: Pooled, rows: Int[np.ndarray, " batch"], run: Callable[[Int[np.ndarray, " batch"]], Pooled]
    ) -> None:
        """Compute a few rows of the first batch again, among fewer others and at other places, and compare."""
        n_again = min(_N_REPEATED, max(1, len(rows) - 1))
        places = np.linspace(len(rows) - 1, 0, n_again).astype(int)
        again = run(rows[places])
        changed = [layer for layer, values in first.items() if _differ(values, places, again[layer])]
        if changed:
            named = ", ".join(f"'!{layer}'" for layer in changed[:6]) + (", ..." if len(changed) > 6 else "")
            problem = f"got other rows when {len(places)} points were computed again in another batch"
            causes = "random numbers, dropout or normalization in training mode, or statistics over the batch"
            advice = f"Look for {causes}, or leave out what comes after them: layers: [{named}]"
            message = f"{problem} ({len(changed)} of {len(first)} layers), expected the same. {advice}"
            raise DataError("not_a_function", f"{self.name}: {message}")


def maps_shape(n_dims: int, is_last: bool = False) -> str | None:
    """Return how maps that a network computes are laid out: channels first, as convolutions give them, or last."""
    return ("nhwc" if is_last else "nchw") if n_dims == 4 else None


def _differ(
    first: Float[np.ndarray, "batch features"], places: Int[np.ndarray, " again"], again: Float[np.ndarray, "..."]
) -> bool:
    """Return whether rows differ by more than `REPEAT_TOLERANCE` of the length of a row (root of the mean square)."""
    if first.shape[1:] != again.shape[1:]:
        return True
    rows = first.astype(np.float64)
    length = np.sqrt(np.mean(np.sum(rows**2, axis=1)))
    return bool((np.linalg.norm(rows[places] - again, axis=1) > REPEAT_TOLERANCE * length).any())
