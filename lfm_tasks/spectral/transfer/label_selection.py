"""Maps of coordinates where anchors do not decide: every pair is known, or none, but perhaps the classes."""

from collections.abc import Iterator, Mapping

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.reasons import ReasonError
from lfm_tasks.spectral.bases.space import SpectralSpace
from lfm_tasks.spectral.maps.label_fit import fit_from_labels, fit_unsupervised
from lfm_tasks.spectral.maps.refinement import MapFit
from lfm_tasks.spectral.transfer.alignment import Alignment, Method, fit_coordinates
from lfm_tasks.spectral.transfer.mutual_pairs import refine_by_mutual_pairs, refined_alignments, round_trip_rate
from lfm_tasks.spectral.transfer.retrieval import partner_ranks
from lfm_tasks.spectral.transfer.selection import Choice, Judged

_N_FOLDS = 5
_METHODS: tuple[Method, ...] = ("orthogonal", "ridge")
_ROUNDS = 10


def choose_from_all_pairs(
    source_rows: Float[np.ndarray, "pairs source_features"],
    target_rows: Float[np.ndarray, "pairs target_features"],
    *,
    seed: int = 0,
) -> Choice:
    """Return the orthogonal or the ridge map of all pairs, whichever finds held-out fifths of them better.

    As with few anchors, the logarithm of the rank counts.

    Raises
    ------
    ReasonError
        ``few_anchors`` for fewer than ten pairs: fifths of them would be single ones.
    """
    if len(source_rows) < 2 * _N_FOLDS:
        found = f"found {len(source_rows)} pairs, a map of all of them needs at least {2 * _N_FOLDS}"
        raise ReasonError("few_anchors", f"{found}: give more points that both spaces have")
    final: dict[str, Alignment] = {name: fit_coordinates(source_rows, target_rows, method=name) for name in _METHODS}
    ranks = np.empty((len(source_rows), len(_METHODS)))
    order = np.random.default_rng(seed).permutation(len(source_rows))
    for held_out in np.array_split(order, _N_FOLDS):
        known = np.setdiff1d(order, held_out)
        for column, name in enumerate(_METHODS):
            fitted = fit_coordinates(source_rows[known], target_rows[known], method=name)
            ranks[held_out, column] = partner_ranks(fitted, source_rows, target_rows[held_out], held_out)
    judged = tuple(
        Judged(
            name,
            float((1 / column).mean()),
            float(np.exp(np.log(column).mean())),
            round_trip_rate(final[name], source_rows, target_rows),
        )
        for name, column in zip(_METHODS, ranks.T, strict=True)
    )
    best = min(judged, key=lambda one: one.typical_rank)
    why = f"{len(ranks)} pairs, a fifth held out at a time: mean reciprocal rank {best.held_out:.3f}, typical rank "
    return Choice(best.name, f"{why}{best.typical_rank:.1f}; best of {len(judged)}", final, judged, None)


def choose_from_labels(
    source: SpectralSpace,
    target: SpectralSpace,
    source_labels: Int[np.ndarray, " source_points"],
    target_labels: Int[np.ndarray, " target_points"],
) -> Choice:
    """Return the map of coordinates that the classes lead to, of those tried the one with most round trips.

    The means of the classes, paired, are the baseline. Raises as `fit_from_labels`.
    """
    fit = fit_from_labels(source, target, source_labels, target_labels)
    classes = np.intersect1d(source_labels, target_labels)
    means = [
        np.array([space.activations[labels == one].mean(axis=0) for one in classes])
        for space, labels in ((source, source_labels), (target, target_labels))
    ]
    paired = fit_coordinates(means[0], means[1], method="orthogonal")
    mutual = refine_by_mutual_pairs(
        paired, source.activations, target.activations, method="orthogonal", n_rounds=_ROUNDS
    )
    found = {"class means": paired, "class means, mutual": mutual, **dict(_spectral(fit, source, target))}
    return _most_round_trips(found, source, target, fit)


def choose_unsupervised(source: SpectralSpace, target: SpectralSpace) -> Choice:
    """Return the map of coordinates that the spectra alone lead to: weak, to be read with its round trips.

    No baseline knows as little. Raises as `fit_unsupervised`.
    """
    fit = fit_unsupervised(source, target)
    return _most_round_trips(dict(_spectral(fit, source, target)), source, target, fit)


def _spectral(fit: MapFit, source: SpectralSpace, target: SpectralSpace) -> Iterator[tuple[str, Alignment]]:
    x, y = source.activations, target.activations
    orthogonal = fit_coordinates(x[fit.matches], y, method="orthogonal")
    yield "lfm", orthogonal
    mutual, ridge = refined_alignments(orthogonal, x, y, _ROUNDS)
    yield "lfm, mutual", mutual
    yield "lfm, mutual ridge", ridge


def _most_round_trips(
    found: Mapping[str, Alignment], source: SpectralSpace, target: SpectralSpace, fit: MapFit
) -> Choice:
    judged = tuple(
        Judged(name, np.nan, np.nan, round_trip_rate(alignment, source.activations, target.activations))
        for name, alignment in found.items()
    )
    best = max(judged, key=lambda one: one.round_trip)
    why = f"no anchors to judge by: most round trips ({best.round_trip:.2f}) of {len(judged)}"
    errors = f"orthogonality {fit.orthogonality_error:.2f}, commutativity {fit.commutativity_error:.2f}"
    return Choice(best.name, f"{why}; errors of the functional map: {errors}", found, judged, fit)
