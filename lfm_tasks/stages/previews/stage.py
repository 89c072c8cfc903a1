"""Stage previews: of the most alike pairs of spaces, the points that differ most, with their neighbors in both."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from lfm_tasks.config import GraphConfig
from lfm_tasks.errors import DataError
from lfm_tasks.runtime.run import Run
from lfm_tasks.sources.opening import DatasetRows, read_dataset
from lfm_tasks.sources.raw_inputs import RawInputs, TokenPoints
from lfm_tasks.spectral.neighbors.centering import center_of, from_center
from lfm_tasks.spectral.neighbors.projections import distance_rows
from lfm_tasks.spectral.neighbors.search import nearest_of
from lfm_tasks.stages.activations.job import read_activations
from lfm_tasks.stages.bases.stage import SpaceBasis
from lfm_tasks.stages.kept_maps.stage import KeptMaps
from lfm_tasks.stages.previews.pictures import as_pictures, first_words, in_bytes, png
from lfm_tasks.stores.units.store import UnitStore, digest

# Points that differ most of each side of a pair, neighbors of each; pairs and points of a dataset, at most.
N_WORST, N_NEIGHBORS, MOST_PAIRS, MOST_POINTS = 5, 3, 100, 400
# Characters of all pictures or texts of a dataset, at most.
_MOST_CHARACTERS = 250_000
_SIDES = ("source", "target")


@dataclass(frozen=True)
class Previews:
    """The section ``previews``: for datasets whose inputs can be shown, what chosen points are."""

    kept: KeptMaps = field(default_factory=KeptMaps)
    rows: Mapping[str, DatasetRows] = field(default_factory=dict)
    graph: GraphConfig = field(default_factory=GraphConfig)

    @property
    def keys(self) -> tuple[str, ...]:
        """One digest of the inputs that are shown; none without any."""
        if not self.rows:
            return ()
        shown = {dataset: _content(rows) for dataset, rows in sorted(self.rows.items())}
        limits = [N_WORST, N_NEIGHBORS, MOST_PAIRS, MOST_POINTS, _MOST_CHARACTERS]
        return (digest({"kind": "previews", "inputs": shown, "limits": limits}),)

    @property
    def unit_keys(self) -> dict[str, set[str]]:
        """Nothing: previews are made when an atlas is published."""
        return {}

    def groups(self, run: Run) -> dict[str, xr.Dataset]:
        """Return ``previews/<dataset>``: what points are (point), the worst of a pair and neighbors, by their places.

        Pairs come in the order of how alike they are, until so many points are shown as a page holds.
        """
        maps = self.kept.groups(run) if self.rows else {}
        made = {
            name: self._group(run.store, maps[f"maps/{name}"], name) for name in self.rows if f"maps/{name}" in maps
        }
        return {f"previews/{name}": group for name, group in made.items() if group is not None}

    def _group(self, store: UnitStore, maps: xr.Dataset, dataset: str) -> xr.Dataset | None:
        rows = self.rows[dataset]
        row_of = {str(name): row for row, name in enumerate(rows.ids)}
        worst = {pair: _worst(maps, pair) for pair in _most_alike_first(maps)[:MOST_PAIRS]}
        ends = {pair: tuple(str(maps[side].values[pair]) for side in _SIDES) for pair in worst}
        points: dict[str, set[str]] = {}
        for pair, of_pair in worst.items():
            for space in ends[pair]:
                points.setdefault(space, set()).update(of_pair["source"], of_pair["target"])
        bases = {basis.space: basis for pair in self.kept.pairs for basis in (pair.source, pair.target)}
        of_dataset = {space.name: basis for space, basis in bases.items() if space.dataset == dataset}
        near = {space: self._neighbors(store, of_dataset[space], sorted(names)) for space, names in points.items()}
        chosen: dict[str, int] = {}
        found = []
        for pair, of_pair in worst.items():
            both = [*of_pair["source"], *of_pair["target"]]
            neighbors = [[near[space].get(name, []) for name in both] for space in ends[pair]]
            named = {*both, *(name for of in neighbors for line in of for name in line)}
            if len(chosen.keys() | named) > MOST_POINTS:
                break
            for name in sorted(named):
                chosen.setdefault(name, len(chosen))
            found.append(_Found(ends[pair], of_pair, neighbors))
        names = [name for name in chosen if name in row_of]
        shown = _within(_shown(rows, np.array([row_of[name] for name in names], dtype=int)))
        return _published(found, names[: len(shown)], shown, _kind(rows)) if shown else None

    def _neighbors(self, store: UnitStore, basis: SpaceBasis, points: list[str]) -> dict[str, list[str]]:
        """Return the nearest points of each that a space has, as its graph measures them; none without a direction."""
        with store.open("activations", basis.activations) as unit:
            activations, ids = read_activations(unit), [str(name) for name in unit.read("ids")]
        place = {name: row for row, name in enumerate(ids)}
        there = [name for name in points if name in place]
        n_neighbors = min(N_NEIGHBORS, len(ids) - 1)
        if not there or n_neighbors < 1:
            return {}
        try:
            if self.graph.is_centered:
                activations = from_center(activations, center_of(activations))
            rows = distance_rows(activations, self.graph.metric)
        except DataError:  # with landmarks, a row that is none of them may lie at the center
            return {}
        nearest = nearest_of(rows, np.array([place[name] for name in there]), n_neighbors).indices
        return {name: [ids[row] for row in line] for name, line in zip(there, nearest.tolist(), strict=True)}


@dataclass(frozen=True)
class _Found:
    """The spaces of a pair, the points of each side that differ most, and the neighbors of all in source and target."""

    ends: tuple[str, ...]
    worst: Mapping[str, list[str]]
    neighbors: list[list[list[str]]]


def choose_previews(run: Run, kept: KeptMaps) -> Previews:
    """Return which inputs the atlas shows: none if ``atlas.previews`` is false, or a dataset has none to show."""
    if not run.catalog.atlas.previews or not kept.pairs:
        return Previews()
    datasets = sorted({pair.source.space.dataset for pair in kept.pairs})
    # The zoo holds ids and labels only: inputs are large.
    rows = {name: read_dataset(name, run.catalog) for name in datasets}
    return Previews(kept, {name: of for name, of in rows.items() if _kind(of)}, run.catalog.atlas.graph)


def _kind(rows: DatasetRows) -> str:
    """Return how the inputs of a dataset are shown: image or text; "" for numbers, or without inputs."""
    shown = rows.previews if rows.previews is not None else rows.inputs
    if isinstance(shown, np.ndarray):
        if shown.dtype.kind in "USO":
            return "text"
        return "image" if as_pictures(shown) is not None else ""
    if isinstance(shown, RawInputs):
        return {"texts": "text", "images": "image"}[shown.kind]
    return "text" if isinstance(shown, TokenPoints) else ""


def _content(rows: DatasetRows) -> str:
    """Return the digest of what is shown of a dataset."""
    shown = rows.previews if rows.previews is not None else rows.inputs
    if isinstance(shown, np.ndarray):
        content = "\0".join(map(str, shown)).encode() if shown.dtype.kind in "USO" else np.ascontiguousarray(shown).data
        return hashlib.sha256(content).hexdigest()
    if isinstance(shown, TokenPoints):
        return shown.tokens_digest + shown.texts.digest()
    return shown.digest() if shown is not None else ""


def _shown(rows: DatasetRows, chosen: Int[np.ndarray, " chosen"]) -> Iterator[str]:
    """Yield a preview of each chosen row: the base64 of a PNG file, or the beginning of a text."""
    shown = rows.previews if rows.previews is not None else rows.inputs
    if isinstance(shown, TokenPoints):
        yield from map(first_words, shown.texts.read(shown.text_of[chosen]))
    elif isinstance(shown, np.ndarray) and shown.dtype.kind in "USO":
        yield from (first_words(str(shown[row])) for row in chosen)
    elif isinstance(shown, np.ndarray):
        pictures = as_pictures(shown)
        if pictures is not None:
            yield from (_base64(picture) for picture in in_bytes(pictures[chosen]))
    elif isinstance(shown, RawInputs):
        # One by one: a large photo takes 100 MiB.
        for row in chosen:
            (one,) = shown.read(np.array([row]))
            yield first_words(one) if isinstance(one, str) else _base64(np.asarray(one, dtype=np.uint8))


def _base64(picture: np.ndarray) -> str:
    return base64.b64encode(png(picture)).decode()


def _within(shown: Iterator[str]) -> list[str]:
    """Return the previews that fit into the characters that a dataset may use."""
    kept, n_characters = [], 0
    for one in shown:
        n_characters += len(one)
        if n_characters > _MOST_CHARACTERS:
            break
        kept.append(one)
    return kept


def _most_alike_first(maps: xr.Dataset) -> list[int]:
    """Return the pairs in the order of their mean distortion: where most is alike, single points stand out."""
    means = np.nanmean(maps["source_distortion"].values.astype(np.float64), axis=1)
    return [int(pair) for pair in np.argsort(np.nan_to_num(means, nan=np.inf).round(6), kind="stable")]


def _worst(maps: xr.Dataset, pair: int) -> dict[str, list[str]]:
    """Return the names of the points of each side that differ most."""
    names = [str(name) for name in maps["point"].values]
    worst = {}
    for side in _SIDES:
        values: Float[np.ndarray, " points"] = maps[f"{side}_distortion"].values[pair].astype(np.float64)
        falling = np.argsort(-np.where(np.isfinite(values), values, -np.inf).round(6), kind="stable")[:N_WORST]
        worst[side] = [names[point] for point in falling if np.isfinite(values[point])]
    return worst


def _published(found: list[_Found], names: list[str], shown: list[str], kind: str) -> xr.Dataset:
    """Return the group of a dataset; −1 stands for a point that is not shown or not there."""
    place = {name: at for at, name in enumerate(names)}
    points = np.full((len(found), 2 * N_WORST), -1, dtype=np.int32)
    neighbors = np.full((len(found), 2, 2 * N_WORST, N_NEIGHBORS), -1, dtype=np.int32)
    for pair, one in enumerate(found):
        lines = [name for side in _SIDES for name in [*one.worst[side], *[""] * (N_WORST - len(one.worst[side]))]]
        points[pair] = [place.get(name, -1) for name in lines]
        filled = [at for at, name in enumerate(lines) if name]
        for space, of in enumerate(one.neighbors):
            for at, line in zip(filled, of, strict=True):
                for rank, name in enumerate(line):
                    neighbors[pair, space, at, rank] = place.get(name, -1)
    meaning = "places in point, -1 where there is none: "
    return xr.Dataset(
        {
            "preview": ("point", np.array(shown, dtype=object), {"long_name": "PNG in base64, or text"}),
            "worst": (("pair", "rank"), points, {"long_name": meaning + "worst of the source, then of the target"}),
            "neighbors": (
                ("pair", "space", "rank", "neighbor"),
                neighbors,
                {"long_name": meaning + "nearest points in source and target"},
            ),
        },
        {
            "point": np.array(names, dtype=object),
            "source": ("pair", np.array([one.ends[0] for one in found], dtype=object)),
            "target": ("pair", np.array([one.ends[1] for one in found], dtype=object)),
        },
        {"kind": kind},
    )
