"""What a map is fitted from: pairs of ids that a person names, some of the common ids, or no pairs at all."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.stored_array import check_held
from lfm_tasks.spectral.maps.anchors import Anchors
from lfm_tasks.stages.inventory.correspondence import common_ids, drawn_ids

Regime = Literal["anchors", "labels", "unsupervised", "full"]
REGIMES: tuple[Regime, ...] = ("anchors", "labels", "unsupervised", "full")
LEAST_ANCHORS = 3  # one is held out, and two remain


@dataclass(frozen=True)
class KnownPoints:
    """What is known; with regime anchors ``pairs`` of source and target ids, or ``n_anchors`` drawn by ``seed``."""

    regime: Regime = "anchors"
    n_anchors: int = 10
    seed: int = 0
    pairs: tuple[tuple[str, str], ...] = ()

    def ingredients(self) -> dict[str, Any]:
        """Return what can change a map, for its digest."""
        if self.regime != "anchors":
            return {"regime": self.regime, "seed": self.seed}
        return asdict(self) | ({"n_anchors": len(self.pairs)} if self.pairs else {})


def read_pairs(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the pairs of ids in a file: a column (the same id in both spaces), or two (source, target).

    Text has an id a line, .csv one or two columns without a head, .npy one or two columns.

    Raises
    ------
    ReasonError
        ``missing_source``, ``wrong_shape`` or ``wrong_dtype`` for the file; ``bad_anchors`` for empty or repeated ids;
        ``few_anchors`` below three.
    """
    rows = _csv_rows(path) if path.suffix == ".csv" else _array_rows(path)
    pairs = tuple((row[0], row[-1]) for row in rows)
    for side, ids in zip(("source", "target"), zip(*pairs, strict=True), strict=False):
        if "" in ids:
            needed = "needs an id in every line: remove the empty ones"
            raise ReasonError("bad_anchors", f"{path}: found an empty {side} id in row {ids.index('') + 1}, {needed}")
        if repeated := sorted({name for name in ids if ids.count(name) > 1}):
            found = f"found the {side} id {_shown(repeated[0])} more than once among {len(ids)}"
            raise ReasonError("bad_anchors", f"{path}: {found}, needs each once: give each point one partner")
    if len(pairs) < LEAST_ANCHORS:
        raise ReasonError(
            "few_anchors", f"{path}: found {len(pairs)} anchors, needs at least {LEAST_ANCHORS}: give more ids"
        )
    return tuple(sorted(pairs))


def known_anchors(
    known: KnownPoints,
    source_ids: Shaped[np.ndarray, " source_points"],
    target_ids: Shaped[np.ndarray, " target_points"],
) -> Anchors:
    """Return the rows of both spaces that are known to belong together; ids are in ascending order.

    Drawn anchors are the common ids with the smallest seeded digests, so that spaces that lack some keep the others.

    Raises
    ------
    ReasonError
        ``bad_anchors`` for an id that a space does not have, ``few_anchors`` for fewer than three common ids.
    """
    if known.pairs:
        names = zip(*known.pairs, strict=True)
        sides = zip(("source", "target"), names, (source_ids, target_ids), strict=True)
        return Anchors(*(_rows_of(side, wanted, ids) for side, wanted, ids in sides))
    common = common_points(source_ids, target_ids)
    if len(common) < known.n_anchors:
        found = f"found {len(common)} common ids, and {known.n_anchors} anchors were asked for"
        raise ReasonError("few_anchors", f"{found}: ask for fewer, or record both spaces on the same samples")
    return common.take(drawn_ids(source_ids[common.source], known.n_anchors, known.seed))


def common_points(
    source_ids: Shaped[np.ndarray, " source_points"], target_ids: Shaped[np.ndarray, " target_points"]
) -> Anchors:
    """Return the rows of all ids that both spaces have."""
    _, source, target = common_ids(source_ids, target_ids)
    return Anchors(source, target)


def _csv_rows(path: Path) -> list[list[str]]:
    try:
        check_held(str(path), path.stat().st_size)
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        raise ReasonError("missing_source", f"{path}: cannot be read ({error.strerror}): check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ReasonError("wrong_dtype", f"{path}: found no UTF-8 text with commas: save it as CSV") from error
    widths = {len(row) for row in rows}
    if len(widths) > 1 or max(widths, default=1) > 2:
        found = f"found rows of {', '.join(map(str, sorted(widths)))} columns"
        raise ReasonError(
            "wrong_shape", f"{path}: {found}, needs one column of ids, or two (source, target) throughout"
        )
    return [[cell.strip() for cell in row] for row in rows]


def _array_rows(path: Path) -> list[list[str]]:
    values = open_array(path, str(path)).load()
    if values.dtype.kind not in "Uiu":
        raise ReasonError("wrong_dtype", f"{path}: found {values.dtype}, needs ids: text or whole numbers")
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] not in (1, 2):
        found = f"found the shape {values.shape}"
        raise ReasonError("wrong_shape", f"{path}: {found}, needs one column of ids, or two (source, target)")
    rows: list[list[str]] = values.astype(str).tolist()
    return rows


def _rows_of(side: str, wanted: tuple[str, ...], ids: Shaped[np.ndarray, " points"]) -> Int[np.ndarray, " anchors"]:
    place = {str(name): row for row, name in enumerate(ids.tolist())}
    if missing := [name for name in wanted if name not in place]:
        found = f"found {len(missing)} of {len(wanted)} anchors that the {side} space does not have"
        hint = did_you_mean(missing[0], place)
        raise ReasonError("bad_anchors", f"{found}, first {_shown(missing[0])}{hint}")
    return np.array([place[name] for name in wanted], dtype=np.int64)


def _shown(name: str) -> str:
    return ascii(name)[:60]
