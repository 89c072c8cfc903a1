"""Which tokens of each point are real, where shorter ones were padded."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped

from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.files.stored_array import StoredArray

MaskReader = Callable[[Int[np.ndarray, " selected"]], Bool[np.ndarray, "selected tokens"]]


@dataclass(frozen=True)
class TokenMask:
    """A stored array (points, tokens) of 0 and 1."""

    array: StoredArray
    n_points: int

    def __post_init__(self) -> None:
        if len(self.array.shape) != 2 or self.array.dtype.kind not in "fiub":
            found = f"found a mask of {self.array.dtype} and shape {self.array.shape}"
            raise ReasonError("wrong_shape", f"{self.array.name}: {found}, needs (points, tokens) of 0 and 1")
        if self.array.shape[0] != self.n_points:
            found = f"found a mask of {self.array.shape[0]} rows and {self.n_points} ids"
            raise ReasonError("bad_ids", f"{self.array.name}: {found}, needs one row an id: give that mask")

    def check_fits(self, array: StoredArray, pool: str) -> None:
        """Raise ReasonError if the mask cannot be that of ``array``, or the pooling has no use for one."""
        if pool == "flatten":
            found = "found a mask and pool: flatten, which keeps padded tokens"
            raise ReasonError("wrong_shape", f"{array.name}: {found}: remove the mask, or pool the tokens")
        if array.shape[1] != self.array.shape[1]:
            found = f"found {array.shape[1]} tokens and a mask of {self.array.shape[1]}"
            raise ReasonError("wrong_shape", f"{array.name}: {found}, needs as many: give the mask of these tokens")

    @contextmanager
    def rows(self, ids: Shaped[np.ndarray, " points"]) -> Iterator[MaskReader]:
        """Give a function from row numbers to which of their tokens are real."""
        with self.array.rows() as read:

            def valid(rows: Int[np.ndarray, " selected"]) -> Bool[np.ndarray, "selected tokens"]:
                values = read(rows)
                strange = ((values != 0) & (values != 1)).any(axis=1)
                if strange.any():
                    found = f"found other values than 0 and 1 in the mask, first in id {ids[rows[strange.argmax()]]!s}"
                    raise ReasonError("wrong_dtype", f"{self.array.name}: {found}: give 1 for a token, 0 for padding")
                return values.astype(bool)

            yield valid
        self.array.check_unchanged()


def needs_tokens(
    name: str,
    mask: Bool[np.ndarray, "batch tokens"],
    prefix_tokens: int,
    ids: Shaped[np.ndarray, " batch"],
) -> None:
    """Raise ReasonError for a point without a token that counts."""
    n_tokens = mask.sum(axis=1)
    short = n_tokens <= prefix_tokens
    if short.any():
        row = short.argmax()
        found = f"found {n_tokens[row]} valid tokens in id {ids[row]!s}, needs more than {prefix_tokens} of prefix"
        raise ReasonError("wrong_shape", f"{name}: {found}: leave out such rows, or mend the mask")
