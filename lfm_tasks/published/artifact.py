"""A page of Markdown: what an atlas comes to, each model's nearest, the models' matrix as a picture."""

import base64
import re
import struct
import zlib
from itertools import islice
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.queries import nearest_models
from lfm_tasks.statistics.model_pairs import model_distances, symmetrized
from lfm_tasks.stores.atlas.schema import AtlasError

MOST_PIXELS = 256  # a side: below 66 kB whatever the values
# Nine points of viridis (CC0, https://bids.github.io/colormap), dark to light.
_VIRIDIS = np.array(
    [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99],
     [170, 220, 50], [253, 231, 37]]
)  # fmt: skip
_MISSING = 255
_GRAY = (190, 190, 190)


def matrix_png(values: Float[np.ndarray, "rows columns"]) -> bytes:
    """Return a picture of values in [0, 1], dark to light, gray where there is none; of large ones block means."""
    values = _block_means(values)
    steps = np.rint(np.clip(np.nan_to_num(values), 0, 1) * (_MISSING - 1))
    pixels = np.where(np.isfinite(values), steps, _MISSING).astype(np.uint8)
    enlarged = max(1, MOST_PIXELS // max(values.shape))
    pixels = pixels.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
    # https://www.w3.org/TR/png-3/: every line begins with its filter, 0 for none; color type 3 looks up a palette.
    lines = np.pad(pixels, ((0, 0), (1, 0))).tobytes()
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _palette()), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _block_means(values: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        n = values.shape[axis]
        if n > MOST_PIXELS:
            starts = np.arange(MOST_PIXELS) * n // MOST_PIXELS
            known = np.isfinite(values)
            sums = np.add.reduceat(np.where(known, values, 0.0), starts, axis=axis)
            counts = np.add.reduceat(known.astype(float), starts, axis=axis)
            values = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    return values


def _palette() -> bytes:
    places = np.linspace(0, len(_VIRIDIS) - 1, _MISSING)
    colors = [np.interp(places, np.arange(len(_VIRIDIS)), channel).round() for channel in _VIRIDIS.T]
    return np.vstack([np.stack(colors, axis=1), _GRAY]).astype(np.uint8).tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# Prefect's interface and others like it refuse or lag on larger pages.
MOST_BYTES = 200_000
_ENOUGH = 150_000
_MORE = "There is more in the report."
_LOWEST_RECALL = 0.95


def artifact_page(atlas: Atlas) -> str:
    """Return Markdown of less than `MOST_BYTES`: checks, and for each dataset a picture and the nearest models."""
    lines = ["| check | verdict | found |", "|---|---|---|"]
    lines += [f"| {name} | {'look' if concern else 'ok'} | {found} |" for name, concern, found in _checks(atlas)]
    for dataset in atlas.datasets:
        try:
            matrix = atlas.matrix(dataset=dataset)
        except AtlasError as error:
            lines += ["", f"**{plain(dataset)}**: {plain(str(error))}"]
            continue
        similarity = symmetrized(matrix.values)
        lines += ["", *_picture(matrix, similarity), "", *_nearest(atlas, dataset, similarity)]
        if sum(map(len, lines)) > _ENOUGH:
            lines += ["", _MORE]
            break
    return "\n".join(_shortened(lines)) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown and HTML show as it is: no link, no emphasis, no cell border, no element.

    Examples
    --------
    >>> plain("mlp_s0/relu1"), plain("a|<b>")
    ('mlp_s0/relu1', 'a&#124;&#60;b&#62;')
    """
    unsafe = r"[^A-Za-z0-9 /,.\-_]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=www)\."
    return re.sub(unsafe, lambda found: f"&#{ord(found.group())};", text)


def _checks(atlas: Atlas) -> list[tuple[str, bool, str]]:
    counts = atlas.summary["counts"]
    failures = atlas.summary["failures"]
    reasons = sorted({failure["reason"] for failure in failures})
    there = atlas.scores["n_points"].values > 0
    pieces = int((atlas.scores["n_components"].values[there] > 1).sum())
    missed = int((atlas.scores["recall"].values[there] < _LOWEST_RECALL).sum())
    failed = f"{len(failures)} failed" + (f" ({plain(', '.join(reasons))})" if reasons else "")
    without = counts["directed_pairs_without_score"]
    return [
        (
            "spaces",
            bool(failures),
            f"{counts['spaces']} of {counts['models']} models; {failed}",
        ),
        ("pairs", bool(without), f"{counts['directed_pairs']} directed, {without} without a score"),
        ("graphs", bool(pieces), f"{pieces} were in pieces before they were joined"),
        ("neighbors", bool(missed), f"{missed} spaces with a recall below {_LOWEST_RECALL}"),
    ]


def _picture(matrix: xr.DataArray, similarity: np.ndarray) -> list[str]:
    order = list(range(len(similarity)))
    if len(order) > 2:
        distances = squareform(model_distances(similarity), checks=False)
        # The best order of the leaves takes seconds from a thousand on.
        order = [int(leaf) for leaf in leaves_list(linkage(distances, "average", optimal_ordering=len(order) <= 1000))]
    names = [str(matrix["source"].values[row]) for row in order]
    picture = base64.b64encode(matrix_png(similarity[np.ix_(order, order)])).decode()
    told = f"models by models on {matrix.attrs['dataset']}, {matrix.attrs['statistic']} {matrix.attrs['measure']}"
    return [
        f'<img alt="{plain(told)}" src="data:image/png;base64,{picture}">',
        "",
        f"{plain(told)}: dark is chance, light is alike, gray has no value. In order: {plain(', '.join(names))}",
    ]


def _nearest(atlas: Atlas, dataset: str, similarity: np.ndarray) -> list[str]:
    names, measure = atlas.names(dataset), atlas.default_measure
    columns = ("model", "nearest", "value", "ahead of the next by", "most alike layers", "their 95 % interval")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for model in names.models:
        if sum(map(len, lines)) > _ENOUGH:
            break
        for row in islice(nearest_models(atlas.scores, names, model, measure, similarity), 1):
            between = f"{plain(row['source'])}, {plain(row['target'])}" if "source" in row else ""
            interval = f"{_number(row.get('ci_low'))} to {_number(row.get('ci_high'))}"
            cells = (plain(model), plain(row["name"]), _number(row["value"]), _number(row["margin"]), between, interval)
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"


def _shortened(lines: list[str]) -> list[str]:
    """Return as many whole lines as fit."""
    sizes = np.cumsum([len(line) + 1 for line in lines])
    n_fit = int(np.searchsorted(sizes, MOST_BYTES - 1000))
    return lines if n_fit == len(lines) else [*lines[:n_fit], "", _MORE]
