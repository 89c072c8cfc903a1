"""A functional map with scikit-learn's interface: fitted on two arrays, it carries rows of one into the other."""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data

from lfm_tasks.spectral.transfer.selection import FittedMap, fit_map


class LatentFunctionalMap(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Carries rows of one space into the coordinates of another, by the map that carries held-out anchors best.

    Parameters
    ----------
    n_eigenpairs
        How many eigenvectors of each space's graph the functional map is between; >= 2, fewer than the points. None:
        50, or a third of the points where they are fewer.
    random_state
        The seed that draws the anchors which are held out to choose among candidates.

    Attributes
    ----------
    fitted_map_
        The chosen map (`lfm_atlas.fit_map`); it prints as the table of all candidates.
    n_features_in_
        The number of features of ``x``; ``feature_names_in_`` are their names where ``x`` is a data frame.

    Examples
    --------
    >>> import numpy as np
    >>> from lfm_atlas import LatentFunctionalMap
    >>> generator = np.random.default_rng(0)
    >>> x = generator.normal(size=(120, 6))
    >>> y = x @ np.linalg.qr(generator.normal(size=(6, 6)))[0]
    >>> carried = LatentFunctionalMap().fit(x, y).transform(x)
    >>> bool(np.abs(carried - y).max() < 1e-6)
    True
    """

    def __init__(self, n_eigenpairs: int | None = None, random_state: int = 0) -> None:
        self.n_eigenpairs = n_eigenpairs
        self.random_state = random_state

    def fit(self, x: Any, y: Any, anchors: Any = None) -> Self:
        """Fit the map from ``x`` to ``y``.

        Parameters
        ----------
        x
            The source (points, features).
        y
            The target (points, features), or (points) of one feature; without ``anchors`` its rows are the same points
            in the same order.
        anchors
            Row numbers that mean the same point in both, or (pairs, 2) of rows of ``x`` and of ``y``; three at least.
            All other rows may be in any order and of any number.

        Raises
        ------
        DataError
            If the arrays or anchors cannot be used, as `lfm_atlas.fit_map`; it is a ValueError.

        Examples
        --------
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> x = generator.normal(size=(120, 6))
        >>> order = generator.permutation(120)
        >>> y = (x @ np.linalg.qr(generator.normal(size=(6, 6)))[0])[order]  # the same points in another order
        >>> rows = np.column_stack([order, np.arange(120)])[:40]  # of 40 it is known which they are
        >>> LatentFunctionalMap().fit(x, y, anchors=rows).transform(x).shape
        (120, 6)
        """
        if y is None:
            raise ValueError("got no y, expected the target: requires y to be passed, but the target y is None.")
        source = validate_data(self, x, dtype=np.float64, ensure_min_samples=2)
        target = check_array(y, dtype=np.float64, ensure_min_samples=2, ensure_2d=False, input_name="y")
        target = target.reshape(len(target), -1) if target.ndim == 1 else target
        if anchors is None:
            check_consistent_length(source, target)
            anchors = np.arange(len(source))
        self.fitted_map_: FittedMap = fit_map(
            source, target, np.asarray(anchors), n_eigenpairs=self.n_eigenpairs, seed=self.random_state
        )
        self._n_features_out = target.shape[1]
        return self

    def transform(self, z: Any) -> np.ndarray:
        """Return rows of the source, seen before or not, in the coordinates of the target (points, target features).

        Examples
        --------
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(120, 6))
        >>> LatentFunctionalMap().fit(x, 2 * x).transform(x[:3]).shape
        (3, 6)
        """
        check_is_fitted(self)
        return self.fitted_map_.transfer(validate_data(self, z, dtype=np.float64, reset=False))

    def __sklearn_tags__(self) -> Any:
        """Return the assumptions that scikit-learn may make: the target is required and has several columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = False
        return tags
