"""The estimator that chooses: spectral maps and their baselines, judged by anchors they have not seen."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.spectral.bases.space import SpectralSpace, spectral_space
from lfm_tasks.spectral.maps.descriptors import Anchors, check_anchors
from lfm_tasks.spectral.maps.fit import fit_from_anchors, fit_from_labels, fit_unsupervised
from lfm_tasks.spectral.maps.refinement import MapFit, Start
from lfm_tasks.spectral.transfer.alignment import (
    Alignment,
    AlignmentMethod,
    fit_coordinates,
    fit_procrustes,
    fit_relative,
    partner_ranks,
    refine_by_icp,
    refine_by_mutual_pairs,
    refined_alignments,
    round_trip_rate,
    similarities,
    transfer_coordinates,
)
from lfm_tasks.threads import one_thread

# From this many anchors on, several are held out at a time; below, one.
MANY_ANCHORS = 20
_N_FOLDS = 5
# How many rows of a space candidates are judged among. With far fewer, maps refined on mutual pairs look worse than
# they are: they have fewer pairs to be fitted on than in the end.
_MOST_ROWS = 2000
# Below this share of rows that come back, round trips are noise (trained against untrained networks: up to .15).
_TELLING_ROUND_TRIP = 0.25
# Rounds of refinement while candidates are judged, and of the one that is taken. Refinement settles early: with 10
# rounds for both, words, sentences and images (5, 10, 20 and 50 anchors) give the same choices of the same quality, in
# 1.15 times the time.
_SCORING_ROUNDS = 5
_ROUNDS = 10

BASELINES = ("procrustes", "ridge", "relative", "procrustes, icp")
CANDIDATES = (*BASELINES, "procrustes, mutual", "lfm", "lfm, mutual", "lfm, mutual ridge")


@dataclass(frozen=True)
class CandidateScore:
    """One candidate: mean reciprocal and geometric mean rank of held-out anchors, share of rows that come back."""

    name: str
    held_out: float
    typical_rank: float
    round_trip: float


@dataclass(frozen=True)
class Choice:
    """Which candidate was chosen and why, all of them with their scores, and the spectral fit if there is one."""

    name: str
    why: str
    candidates: Mapping[str, Alignment]
    candidate_scores: tuple[CandidateScore, ...]
    fit: MapFit | None

    @property
    def alignment(self) -> Alignment:
        """The alignment that was chosen."""
        return self.candidates[self.name]


def choose_alignment(source: SpectralSpace, target: SpectralSpace, anchors: Anchors, *, seed: int = 0) -> Choice:
    """Return the map of coordinates that carries held-out anchors best, among spectral maps and baselines.

    Candidates: Procrustes and ridge on the anchors; relative representations; Procrustes refined by ICP, or by pairs
    that choose each other; the functional map's pairs fitted orthogonally, and refined by mutual pairs with an
    orthogonal or a ridge map. Each is fitted again without the rows of some anchors (one at a time below 20, a fifth
    from 20 on) and has to find their partners among up to two thousand rows. The logarithm of their rank counts: a few
    lucky hits rule the mean of reciprocal ranks, not this one. Of those that are not worse than the best by more than
    one standard error of the difference (two below 20 anchors), the one with the highest round-trip rate is taken; but
    where not even a quarter of the rows come back, as between networks that have little in common, round trips say
    nothing, and the best one is taken.

    Needs three anchors, of which two remain when one is held out.

    Parameters
    ----------
    source
        Source space.
    target
        Target space; its points may be others, in any order and number.
    anchors
        Rows of both that are one point; three or more.
    seed
        Draws which anchors are held out together.

    Raises
    ------
    DataError
        ``few_anchors`` or ``bad_anchors``.
    """
    check_anchors(anchors, len(source), len(target))
    if len(anchors) < 3:
        raise DataError("few_anchors", f"got {len(anchors)} anchors, expected at least 3 to choose by. Give more pairs")
    fit = _fit_or_none(source, target, anchors)
    partners = None if fit is None else source.activations[fit.matches]
    pairs = Pairs(source.activations, target.activations, anchors, partners)
    order = np.random.default_rng(seed).permutation(len(anchors))
    start = None if fit is None else fit.start
    ranks = np.concatenate(list(_held_out_ranks(source, target, anchors, start, order)))
    logarithms = np.log(ranks)
    final = dict(_alignments(pairs, _ROUNDS))
    candidate_scores = tuple(
        CandidateScore(
            name,
            float((1 / column).mean()),
            float(np.exp(np.log(column).mean())),
            round_trip_rate(final[name], source.activations, target.activations),
        )
        for name, column in zip(final, ranks.T, strict=True)
    )
    best = int(logarithms.mean(axis=0).argmin())
    behind = logarithms - logarithms[:, [best]]
    tolerated = _tolerance(len(anchors)) * behind.std(axis=0, ddof=1) / np.sqrt(len(ranks))
    close = np.flatnonzero(behind.mean(axis=0) <= tolerated)
    # Copies tie in full. Relative representations know no coordinates beside those that few anchors span: last, then.
    is_full = [alignment.target_matrix is None for alignment in final.values()]
    chosen = int(max(close, key=lambda index: (candidate_scores[index].round_trip, is_full[index], -index)))
    if candidate_scores[chosen].round_trip < _TELLING_ROUND_TRIP:
        chosen = best
    why = _why(candidate_scores, chosen, best, len(ranks))
    if fit is not None and candidate_scores[chosen].name.startswith("lfm"):
        errors = f"orthogonality {fit.orthogonality_error:.2f}, commutativity {fit.commutativity_error:.2f}"
        why += f"; errors of its functional map: {errors}"
    return Choice(candidate_scores[chosen].name, why, final, candidate_scores, fit)


def _tolerance(n_anchors: int) -> float:
    """Return how many standard errors behind the best still count as equal: few ranks say little, so two."""
    return 1.0 if n_anchors >= MANY_ANCHORS else 2.0


def _fit_or_none(source: SpectralSpace, target: SpectralSpace, anchors: Anchors) -> MapFit | None:
    try:
        return fit_from_anchors(source, target, anchors)
    except DataError as error:
        # Without distinct descriptors there is no spectral candidate; the baselines remain.
        if error.reason in {"few_anchors", "bad_anchors"}:
            raise
        return None


@dataclass(frozen=True)
class Pairs:
    """Rows of both spaces, the known pairs among them, and a source row for every target row, if a map gives one."""

    source: Float[np.ndarray, "source_points source_features"]
    target: Float[np.ndarray, "target_points target_features"]
    anchors: Anchors
    partners: Float[np.ndarray, "target_points source_features"] | None


def _held_out_ranks(
    source: SpectralSpace,
    target: SpectralSpace,
    anchors: Anchors,
    start: Start | None,
    order: Int[np.ndarray, " anchors"],
) -> Iterator[Float[np.ndarray, "held_out candidates"]]:
    """Yield, fold by fold, the rank, from 1, of every held-out anchor's partner under every candidate."""
    n_folds = _N_FOLDS if len(anchors) >= MANY_ANCHORS else len(anchors)
    source_rows, target_rows = (
        _representative_rows(anchors.source, len(source)),
        _representative_rows(anchors.target, len(target)),
    )
    x, y = source.activations[source_rows], target.activations[target_rows]
    for held_out in np.array_split(order, n_folds):
        known = np.setdiff1d(order, held_out)
        # The anchors are the first rows of both. A refined map pairs rows by itself, so what is held out must be gone:
        # among unpaired rows of other points it would be the only one that has a partner.
        left_x, left_y = (np.delete(np.arange(len(rows)), held_out) for rows in (x, y))
        partners = None
        if start is not None:
            fit = fit_from_anchors(source, target, anchors.take(known), starts=(start,))
            partners = source.activations[fit.matches[target_rows[left_y]]]
        places = np.arange(len(known))
        pairs = Pairs(x[left_x], y[left_y], Anchors(places, places), partners)
        candidates = _alignments(pairs, _SCORING_ROUNDS)
        yield np.column_stack([_ranks(alignment, x, y, held_out) for _, alignment in candidates])


def _representative_rows(anchor_rows: Int[np.ndarray, " anchors"], n_points: int) -> Int[np.ndarray, " rows"]:
    """Return the anchors' rows, then evenly spread others: two thousand rows at most that stand for a space."""
    spread = np.linspace(0, n_points - 1, min(n_points, _MOST_ROWS)).astype(np.int64)
    return np.concatenate([anchor_rows, np.setdiff1d(spread, anchor_rows)])


def _alignments(pairs: Pairs, n_rounds: int) -> Iterator[tuple[str, Alignment]]:
    """Yield the candidates in the order of `CANDIDATES`; without ``partners`` no spectral ones."""
    x, y, anchors = pairs.source, pairs.target, pairs.anchors
    procrustes = fit_procrustes(x, y, anchors)
    yield "procrustes", procrustes
    yield "ridge", fit_coordinates(x[anchors.source], y[anchors.target], method="ridge")
    yield "relative", fit_relative(x, y, anchors)
    yield "procrustes, icp", refine_by_icp(procrustes, x, y, n_rounds=2 * n_rounds)
    yield "procrustes, mutual", refined_alignments(procrustes, x, y, n_rounds)[1]
    if pairs.partners is None:
        return
    orthogonal = fit_coordinates(pairs.partners, y, method="orthogonal")
    yield "lfm", orthogonal
    mutual, ridge = refined_alignments(orthogonal, x, y, n_rounds)
    yield "lfm, mutual", mutual
    yield "lfm, mutual ridge", ridge


def _ranks(
    alignment: Alignment,
    source: Float[np.ndarray, "source_points source_features"],
    target: Float[np.ndarray, "target_points target_features"],
    held_out: Int[np.ndarray, " held_out"],
) -> Float[np.ndarray, " held_out"]:
    scores = similarities(alignment, source, target[held_out])
    partner_scores = scores[np.arange(len(held_out)), held_out]
    return (scores >= partner_scores[:, None]).sum(axis=1).astype(np.float64)


def _why(candidate_scores: tuple[CandidateScore, ...], chosen: int, best: int, n_ranks: int) -> str:
    taken, leader = candidate_scores[chosen], candidate_scores[best]
    held_out = (
        f"{n_ranks} held-out anchors: mean reciprocal rank {taken.held_out:.3f}, typical rank "
        f"{taken.typical_rank:.1f}, round trip {taken.round_trip:.2f}"
    )
    if chosen == best:
        return f"{held_out}; best of {len(candidate_scores)}"
    behind = f"{leader.name} (typical rank {leader.typical_rank:.1f})"
    return f"{held_out}; too close to {behind} to tell, which comes back less often"


_N_LABEL_FOLDS = 5
_METHODS: tuple[AlignmentMethod, ...] = ("orthogonal", "ridge")
_LABEL_ROUNDS = 10


def choose_from_all_pairs(
    source_rows: Float[np.ndarray, "pairs source_features"],
    target_rows: Float[np.ndarray, "pairs target_features"],
    *,
    seed: int = 0,
) -> Choice:
    """Return the orthogonal or the ridge map of all pairs: the one that finds held-out fifths of them better.

    As with few anchors, the logarithm of the rank counts.

    Raises
    ------
    DataError
        ``few_anchors`` for fewer than ten pairs: fifths of them would be single ones.
    """
    if len(source_rows) < 2 * _N_LABEL_FOLDS:
        message = f"got {len(source_rows)} pairs, expected at least {2 * _N_LABEL_FOLDS} for a map of all of them"
        raise DataError("few_anchors", f"{message}. Give more points that both spaces have")
    final: dict[str, Alignment] = {name: fit_coordinates(source_rows, target_rows, method=name) for name in _METHODS}
    ranks = np.empty((len(source_rows), len(_METHODS)))
    order = np.random.default_rng(seed).permutation(len(source_rows))
    for held_out in np.array_split(order, _N_LABEL_FOLDS):
        known = np.setdiff1d(order, held_out)
        for column, name in enumerate(_METHODS):
            fitted = fit_coordinates(source_rows[known], target_rows[known], method=name)
            ranks[held_out, column] = partner_ranks(fitted, source_rows, target_rows[held_out], held_out)
    candidate_scores = tuple(
        CandidateScore(
            name,
            float((1 / column).mean()),
            float(np.exp(np.log(column).mean())),
            round_trip_rate(final[name], source_rows, target_rows),
        )
        for name, column in zip(_METHODS, ranks.T, strict=True)
    )
    best = min(candidate_scores, key=lambda one: one.typical_rank)
    why = f"{len(ranks)} pairs, a fifth held out at a time: mean reciprocal rank {best.held_out:.3f}, typical rank "
    return Choice(
        best.name, f"{why}{best.typical_rank:.1f}; best of {len(candidate_scores)}", final, candidate_scores, None
    )


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
        paired, source.activations, target.activations, method="orthogonal", n_rounds=_LABEL_ROUNDS
    )
    alignments = {"class means": paired, "class means, mutual": mutual, **dict(_spectral(fit, source, target))}
    return _most_round_trips(alignments, source, target, fit)


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
    mutual, ridge = refined_alignments(orthogonal, x, y, _LABEL_ROUNDS)
    yield "lfm, mutual", mutual
    yield "lfm, mutual ridge", ridge


def _most_round_trips(
    alignments: Mapping[str, Alignment], source: SpectralSpace, target: SpectralSpace, fit: MapFit
) -> Choice:
    candidate_scores = tuple(
        CandidateScore(name, np.nan, np.nan, round_trip_rate(alignment, source.activations, target.activations))
        for name, alignment in alignments.items()
    )
    best = max(candidate_scores, key=lambda one: one.round_trip)
    why = f"no anchors to judge by: most round trips ({best.round_trip:.2f}) of {len(candidate_scores)}"
    errors = f"orthogonality {fit.orthogonality_error:.2f}, commutativity {fit.commutativity_error:.2f}"
    return Choice(best.name, f"{why}; errors of the functional map: {errors}", alignments, candidate_scores, fit)


@dataclass(frozen=True)
class FittedMap:
    """A map that was chosen among spectral ones and baselines; it prints as the table of all of them.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(120, 6))
    >>> fitted = fit_map(x, x[::-1] * 2, np.column_stack([np.arange(40), 119 - np.arange(40)]))
    >>> fitted.name in fitted.table, fitted.transfer(x[:2]).shape
    (True, (2, 6))
    """

    choice: Choice

    @property
    def name(self) -> str:
        """Which candidate was chosen.

        Examples
        --------
        >>> x = np.random.default_rng(0).normal(size=(120, 6))
        >>> fitted = fit_map(x, 2 * x, np.arange(40))
        >>> fitted.name in fitted.table
        True
        """
        return self.choice.name

    @property
    def why(self) -> str:
        """Why it was chosen.

        Examples
        --------
        >>> x = np.random.default_rng(0).normal(size=(120, 6))
        >>> bool(fit_map(x, 2 * x, np.arange(40)).why)
        True
        """
        return self.choice.why

    @property
    def table(self) -> Mapping[str, Mapping[str, float]]:
        """How the candidates do on anchors that are held out, and the share of points that come back.

        Examples
        --------
        >>> x = np.random.default_rng(0).normal(size=(120, 6))
        >>> fitted = fit_map(x, 2 * x, np.arange(40))
        >>> sorted(fitted.table[fitted.name])
        ['held_out', 'round_trip', 'typical_rank']
        """
        return {
            one.name: {"held_out": one.held_out, "typical_rank": one.typical_rank, "round_trip": one.round_trip}
            for one in self.choice.candidate_scores
        }

    def transfer(
        self, rows: Float[np.ndarray, "points source_features"]
    ) -> Float[np.ndarray, "points target_features"]:
        """Return rows of the source, seen before or not, in the target's coordinates.

        Examples
        --------
        >>> x = np.random.default_rng(0).normal(size=(120, 6))
        >>> bool(np.abs(fit_map(x, 2 * x, np.arange(40)).transfer(x) - 2 * x).max() < 1e-6)
        True
        """
        width = len(self.choice.alignment.source_mean)
        if rows.shape[1] != width:
            raise DataError("wrong_shape", f"got {rows.shape[1]} features, expected {width}: rows of the map's source")
        return transfer_coordinates(self.choice.alignment, np.asarray(rows, dtype=np.float64))

    def __str__(self) -> str:
        width = max(map(len, self.table))
        lines = [f"{'':<{width + 2}}  held out  rank  round trip"]
        for name, row in self.table.items():
            mark = "*" if name == self.name else " "
            numbers = f"{row['held_out']:>10.3f}{row['typical_rank']:>6.1f}{row['round_trip']:>12.3f}"
            lines.append(f"{mark} {name:<{width}}{numbers}")
        return "\n".join(lines)


@one_thread()
def fit_map(
    source: Float[np.ndarray, "source_points source_features"],
    target: Float[np.ndarray, "target_points target_features"],
    anchors: np.ndarray,
    *,
    n_eigenpairs: int | None = 50,
    seed: int = 0,
) -> FittedMap:
    """Return the map from ``source`` to ``target`` that carries held-out anchors best, fitted in one BLAS thread.

    Parameters
    ----------
    source
        Activations of the source, a row for each point.
    target
        Activations of the target; other points, in any order and number, are no problem.
    anchors
        Row numbers that mean the same point in both, or (pairs, 2) of source and target rows; three or more.
    n_eigenpairs
        K of both bases; None: 50, or a third of the points where they are fewer.
    seed
        Draws which anchors are held out together.

    Raises
    ------
    DataError
        ``not_finite`` for NaN or infinite values, ``bad_anchors`` and ``few_anchors`` for the pairs, and as
        `spectral_space`.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(120, 6))
    >>> fitted = fit_map(x, 2 * x, np.arange(40))  # of 40 rows it is known which they are
    >>> bool(np.abs(fitted.transfer(x[40:]) - 2 * x[40:]).max() < 1e-6)
    True
    """
    pairs = np.asarray(anchors)
    if pairs.dtype.kind not in "iu" or pairs.ndim not in (1, 2) or (pairs.ndim == 2 and pairs.shape[1] != 2):
        message = f"got anchors of type {pairs.dtype} and shape {pairs.shape}"
        raise DataError("bad_anchors", f"{message}, expected row numbers, (anchors,) or (anchors, 2)")
    columns = (pairs, pairs) if pairs.ndim == 1 else (pairs[:, 0], pairs[:, 1])
    known = Anchors(*(column.astype(np.int64) for column in columns))
    for side, rows in (("source", source), ("target", target)):
        if not np.isfinite(rows).all():
            raise DataError("not_finite", f"got NaN or infinite values in the {side}, expected finite numbers")
    spaces = [spectral_space(np.asarray(rows, np.float64), n_eigenpairs=n_eigenpairs) for rows in (source, target)]
    return FittedMap(choose_alignment(spaces[0], spaces[1], known, seed=seed))
