"""The page of a Prefect artifact: checks of an atlas, a picture of models by models, the nearest of each model."""

import base64
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from lfm_tasks.errors import number_of
from lfm_tasks.lineage.levels import Level
from lfm_tasks.lineage.relations import Relation
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.queries import nearest_models
from lfm_tasks.statistics.model_pairs import model_distances, symmetrized
from lfm_tasks.stores.atlas.schema import GOOD_RECALL, AtlasError

MAX_PIXELS = 256  # a side: below 66 kB whatever the values
# Nine points of viridis (CC0, https://bids.github.io/colormap), dark to light.
_VIRIDIS = np.array(
    [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
     [170, 220, 50], [253, 231, 37]]
)  # fmt: skip
_NAN_COLOR = 255  # index of the palette
_GRAY = (190, 190, 190)


def matrix_png(values: Float[np.ndarray, "rows columns"]) -> bytes:
    """Return a picture of values in [0, 1], dark to light, NaN in gray; a large matrix is shrunk to block means."""
    values = _block_means(values)
    steps = np.rint(np.clip(np.nan_to_num(values), 0, 1) * (_NAN_COLOR - 1))
    pixels = np.where(np.isfinite(values), steps, _NAN_COLOR).astype(np.uint8)
    enlarged = max(1, MAX_PIXELS // max(values.shape))
    pixels = pixels.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    # https://www.w3.org/TR/png-3/: every line begins with its filter, 0 for none; color type 3 looks up a palette.
    lines = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _block_means(values: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        n = values.shape[axis]
        if n > MAX_PIXELS:
            starts = np.arange(MAX_PIXELS) * n // MAX_PIXELS
            known = np.isfinite(values)
            sums = np.add.reduceat(np.where(known, values, 0.0), starts, axis=axis)
            counts = np.add.reduceat(known.astype(float), starts, axis=axis)
            values = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return values


def _palette() -> bytes:
    places = np.linspace(0, len(_VIRIDIS) - 1, _NAN_COLOR)
    colors = [np.interp(places, np.arange(len(_VIRIDIS)), channel).round() for channel in _VIRIDIS.T]
    return np.vstack([np.stack(colors, axis=1), _GRAY]).astype(np.uint8).tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# Prefect's interface and others like it refuse or lag on larger pages.
MAX_BYTES = 200_000
_MAX_TABLES = 150_000  # characters after which no further table begins
_MORE_TEXT = "There is more in the report."


def artifact_page(atlas: Atlas) -> str:
    """Return Markdown of less than `MAX_BYTES`: checks, and for each dataset a picture and the nearest models."""
    relations = atlas.relations()
    lines = ["| check | verdict | found |", "|---|---|---|"]
    lines += [
        f"| {name} | {'look' if is_concern else 'ok'} | {result} |"
        for name, is_concern, result in _checks(atlas, relations)
    ]
    for dataset in atlas.datasets:
        try:
            matrix = atlas.matrix(dataset=dataset)
        except AtlasError as error:
            lines += ["", f"**{escape_markdown(dataset)}**: {escape_markdown(str(error))}"]
            continue
        similarity = symmetrized(matrix.values)
        levels = {frozenset((one.source, one.target)): one.level for one in relations if one.dataset == dataset}
        lines += ["", *_picture(matrix, similarity), "", *_nearest(atlas, dataset, similarity, levels)]
        if sum(map(len, lines)) > _MAX_TABLES:
            lines += ["", _MORE_TEXT]
            break
    return "\n".join(_shortened(lines)) + "\n"


def nearest_rows(atlas: Atlas, most: int = 500) -> list[dict[str, Any]]:
    """Return a row for each model and dataset: the nearest model, how it is related, and how alike they are.

    ``most``: how many rows at most. Datasets whose measure is a distance without chance have none.
    """
    levels = {(one.dataset, frozenset((one.source, one.target))): str(one.level) for one in atlas.relations()}
    rows: list[dict[str, Any]] = []
    for dataset in atlas.datasets:
        names, measure = atlas.names(dataset), atlas.default_measure
        try:
            similarity = symmetrized(atlas.matrix(dataset=dataset).values)
        except AtlasError:
            continue
        for model in names.models[: most - len(rows)]:
            for row in islice(nearest_models(atlas.scores, names, model, measure, similarity), 1):
                found = {"model": model, "nearest": row["name"], "value": round(row["value"], 3)}
                level = levels.get((dataset, frozenset((model, row["name"]))), "")
                rows.append(found | {"relation": level, "dataset": dataset})
    return rows


def escape_markdown(text: str) -> str:
    """Return ``text`` escaped: Markdown and HTML show it as it is, without link, emphasis, cell border or element.

    Examples
    --------
    >>> escape_markdown("mlp_s0/relu1"), escape_markdown("a|<b>")
    ('mlp_s0/relu1', 'a&#124;&#60;b&#62;')
    """
    unsafe = r"[^A-Za-z0-9 /,.\-_]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=www)\."
    return re.sub(unsafe, lambda match: f"&#{ord(match.group())};", text)


def _checks(atlas: Atlas, relations: Sequence[Relation]) -> list[tuple[str, bool, str]]:
    """Return (name, whether a person should look, result) of each check."""
    counts = atlas.summary["counts"]
    failures = atlas.summary["failures"]
    reasons = sorted({failure["reason"] for failure in failures})
    is_present = atlas.scores["n_points"].values > 0
    n_in_pieces = int((atlas.scores["n_components"].values[is_present] > 1).sum())
    n_low_recall = int((atlas.scores["recall"].values[is_present] < GOOD_RECALL).sum())
    failed = f"{counts['failures']} failed" + (f" ({escape_markdown(', '.join(reasons))})" if reasons else "")
    related = [one for one in relations if one.level.is_at_least(Level.RELATED)]
    n_declared = sum(one.declared for one in related)
    n_without_score, n_values = counts["directed_pairs_without_score"], counts.get("values_without_score", 0)
    return [
        (
            "relations",
            any(not one.declared for one in related),
            f"{number_of(len(related), 'pair')} of copies or related models, {n_declared} declared",
        ),
        (
            "spaces",
            bool(failures),
            f"{counts['spaces']} of {number_of(counts['models'], 'model')}; {failed}",
        ),
        (
            "pairs",
            bool(n_without_score or n_values),
            f"{counts['directed_pairs']} directed, {n_without_score} without a score"
            + (f", {number_of(n_values, 'score')} of single measures missing" if n_values else ""),
        ),
        ("graphs", bool(n_in_pieces), f"{n_in_pieces} were in pieces before they were joined"),
        ("neighbors", bool(n_low_recall), f"{number_of(n_low_recall, 'space')} with a recall below {GOOD_RECALL}"),
    ]


def _picture(matrix: xr.DataArray, similarity: np.ndarray) -> list[str]:
    order = list(range(len(similarity)))
    if len(order) > 2:
        distances = squareform(model_distances(similarity), checks=False)
        # The best order of the leaves takes seconds from a thousand on.
        order = [int(leaf) for leaf in leaves_list(linkage(distances, "average", optimal_ordering=len(order) <= 1000))]
    names = [str(matrix["source"].values[row]) for row in order]
    picture = base64.b64encode(matrix_png(similarity[np.ix_(order, order)])).decode()
    caption = f"models by models on {matrix.attrs['dataset']}, {matrix.attrs['statistic']} {matrix.attrs['measure']}"
    return [
        f'<img alt="{escape_markdown(caption)}" src="data:image/png;base64,{picture}">',
        "",
        f"{escape_markdown(caption)}: dark is chance, light is alike, gray has no value. In order: "
        + escape_markdown(", ".join(names)),
    ]


def _nearest(atlas: Atlas, dataset: str, similarity: np.ndarray, levels: Mapping[frozenset[str], Level]) -> list[str]:
    names, measure = atlas.names(dataset), atlas.default_measure
    columns = (
        "model", "nearest", "relation", "value", "ahead of the next by", "most alike layers", "their 95 % interval"
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for model in names.models:
        if sum(map(len, lines)) > _MAX_TABLES:
            break
        for row in islice(nearest_models(atlas.scores, names, model, measure, similarity), 1):
            between = f"{escape_markdown(row['source'])}, {escape_markdown(row['target'])}" if "source" in row else ""
            interval = f"{_number(row.get('ci_low'))} to {_number(row.get('ci_high'))}"
            cells = (
                escape_markdown(model),
                escape_markdown(row["name"]),
                str(levels.get(frozenset((model, row["name"])), "-")),
                _number(row["value"]),
                _number(row["margin"]),
                between,
                interval,
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _shortened(lines: list[str]) -> list[str]:
    """Return as many whole lines as fit into `MAX_BYTES`, and a line that there is more if not all do."""
    sizes = np.cumsum([len(line) + 1 for line in lines])
    n_fit = int(np.searchsorted(sizes, MAX_BYTES - 1000))
    return lines if n_fit == len(lines) else [*lines[:n_fit], "", _MORE_TEXT]
