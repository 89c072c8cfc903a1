"""Every array of the store: its name, dims, dtype and meaning, once."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ArrayLayout:
    """How one array lies in a unit. Dims are names; a chunk holds ``chunk_rows`` of the first, all of the others.

    Fewer where they would be more than ``chunk_bytes``: a chunk is in memory several times while it is encoded.
    """

    dims: tuple[str, ...]
    dtype: str
    meaning: str
    chunk_rows: int = 1 << 16
    chunk_bytes: int | None = None

    def rows_a_chunk(self, row_bytes: int) -> int:
        """Return how many rows of so many bytes a chunk holds."""
        if self.chunk_bytes is None:
            return self.chunk_rows
        return max(1, min(self.chunk_rows, self.chunk_bytes // max(1, row_bytes)))


_IDS = ArrayLayout(("point",), "str", "sample ids, in ascending order; every other array has its rows in this order")

LAYOUTS: dict[str, dict[str, ArrayLayout]] = {
    "activations": {
        "activations": ArrayLayout(
            ("point", "feature"), "source", "pooled activations, as the source gives them", 2048, 8 << 20
        ),
        "ids": _IDS,
    },
    "designs": {
        "ids": _IDS,
        "sets": ArrayLayout(("point",), "int32", "the group or stratum of each id, numbered"),
    },
    "labels": {
        "ids": _IDS,
        "classes": ArrayLayout(("point",), "int32", "the class of each id, numbered in the order of the labels"),
    },
    "bases": {
        "neighbours": ArrayLayout(("point", "neighbour"), "int32", "row numbers, nearest first, without the point"),
        "distances": ArrayLayout(("point", "neighbour"), "float32", "distances to them, in the metric of the graph"),
        "landmarks": ArrayLayout(
            ("landmark",), "int32", "rows whose graph it is; neighbours are numbered among these; absent: all rows"
        ),
        "eigenvalues": ArrayLayout(("eigenpair",), "float64", "of the normalised Laplacian, ascending, in [0, 2]"),
        "eigenvectors": ArrayLayout(("point", "eigenpair"), "float64", "unit length, largest entry positive"),
        "overlap_profile": ArrayLayout(("number",), "float64", "sums that give the permutation moments of overlap"),
        "ids": _IDS,
    },
    "collections": {
        "coefficients": ArrayLayout(
            ("space", "eigenpair", "mode"), "float64", "Y of each space, orthonormal: its basis times Y is shared"
        ),
        "cycle_residual": ArrayLayout(("source", "target"), "float64", "0: consistent with others, 1: unrelated; NaN"),
        "shared_distance": ArrayLayout(("source", "target"), "float64", "RMS distance of shared coordinates, >= 0"),
    },
    "maps": {
        "source_mean": ArrayLayout(("source_feature",), "float64", "x0 of x -> (x - x0) W + y0"),
        "matrix": ArrayLayout(("source_feature", "target_feature"), "float64", "W of x -> (x - x0) W + y0", 1024),
        "target_mean": ArrayLayout(("target_feature",), "float64", "y0 of x -> (x - x0) W + y0"),
        "functional_map": ArrayLayout(
            ("target_eigenpair", "source_eigenpair"), "float64", "the spectral fit; absent where there is none"
        ),
    },
    "scores": {
        "pairs": ArrayLayout(("pair", "side"), "int32", "positions in the unit's list of bases; side 0 <= side 1"),
        "values": ArrayLayout(
            ("pair", "direction", "measure", "statistic"),
            "float64",
            "direction 0 is side 0 -> side 1, 1 the other way; NaN where the receipt says why",
        ),
        "n_common": ArrayLayout(("pair",), "int32", "points that both spaces have, refused pairs too"),
        "diagnostics": ArrayLayout(
            ("pair", "direction", "diagnostic"), "float64", "of each map; NaN where it has none"
        ),
        "maps": ArrayLayout(
            ("pair", "direction", "target_eigenpair", "source_eigenpair"), "float32", "maps grown by ZoomOut, else none"
        ),
    },
    "kept_maps": {
        "functional_maps": ArrayLayout(
            ("pair", "second_eigenpair", "first_eigenpair"),
            "float32",
            "from the first base of a pair to the second",
            64,
        ),
        "distortions": ArrayLayout(
            ("pair", "side", "point"), "float32", "where a base is not reached by the other; side 0 is the first", 64
        ),
        "ids": _IDS,
    },
    "embedded_points": {
        "ids": _IDS,
        "labels": ArrayLayout(("point",), "str", "the class of each point; empty where there is none"),
        "folds": ArrayLayout(("point",), "int32", "in which fold a probe is tested on the point; -1: in none"),
    },
    "embeddings": {
        "coordinates": ArrayLayout(("point", "axis"), "float32", "t-SNE of one space"),
        "ids": _IDS,
    },
    "probes": {
        "accuracies": ArrayLayout(("source",), "float64", "of the probe of one target, by source, in [0, 1]"),
    },
}

# Kinds whose arrays lie in one file. Not activations: they come in batches, outlive kills and may not fit in memory.
PACKED_KINDS = LAYOUTS.keys() - {"activations"}
