"""The figures of moved spaces: curves, pictures by class and by distortion."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from lfm_tasks.experiments.finding import Figure
from lfm_tasks.experiments.robustness_values import Curve, Curves, Moved
from lfm_tasks.figures.charts import (
    COLOURS,
    Axes,
    Dot,
    Line,
    line_chart,
    points_in_plane,
    share_colour,
)
from lfm_tasks.figures.svg import side_by_side

# Measures that stand out in the figures; the name says where its graph is the paper's.
_SHOWN = {
    "lfm_unsquared, 3 % neighbours": COLOURS[1],
    "lfm_unsquared, 299 neighbours": COLOURS[8],
    "overlap": COLOURS[2],
    "cka_linear": COLOURS[0],
    "svcca_variance_99": COLOURS[3],
    "mutual_knn_10_cosine": COLOURS[4],
}
_PAPER_OUTLIER = "lfm_unsquared"
_CLASS_CAPTION = (
    "Similarity of the original space to one in which a class is moved along its classifier’s normal, by mean radii of "
    "the space. Dashed: accuracy of a linear probe of all classes, trained anew. Grey: all other measures. Bands: 95 %."
)
_OUTLIER_CAPTION = "The same with one point put far out, on the side where it was. Grey: all other measures."
_AUC_CAPTION = (
    "How often a point of the moved class is more distorted than another point (area under the ROC curve; .5: "
    "distortion knows nothing of the class). Distortion on the moved space’s points, and on the original’s."
)


def class_figure(found: Curves, probe: Curve) -> Figure:
    """Return every measure, and a probe, against how far a class is moved."""
    return Figure("class", _CLASS_CAPTION, _class_chart(found, probe))


def outlier_figure(found: Curves) -> Figure:
    """Return every measure against how far one point is put out."""
    return Figure("outlier", _OUTLIER_CAPTION, _outlier_chart(found))


def auc_figure(auc: Mapping[str, Curve]) -> Figure:
    """Return how well distortion tells the moved class."""
    return Figure("auc", _AUC_CAPTION, _auc_chart(auc))


def picture_figure(groups: Mapping[str, xr.Dataset], moved: Sequence[Moved], pictured: str) -> Figure:
    """Return the original and a moved space in the plane."""
    return Figure("pictures", _picture_caption(pictured), _pictures(groups, moved, pictured))


def _class_chart(found: Curves, probe: Curve) -> str:
    start = {name: {0.0: Dot(1.0, 1.0, 1.0), **curve} for name, curve in found.items()}
    lines = [*_lines(start, _SHOWN), Line("linear probe", list(probe), list(probe.values()), COLOURS[7], True)]
    axes = Axes("class moved by, mean radii", "similarity to the original", ticks={0.0: "0", **_ticks()})
    return line_chart(lines, axes, height=400)


def _ticks() -> dict[float, str]:
    return {float(tick): str(tick) for tick in (1, 2, 3, 4, 6, 8)}


def _outlier_chart(found: Curves) -> str:
    colours = {name: colour for name, colour in _SHOWN.items() if "neighbours" not in name} | {
        _PAPER_OUTLIER: COLOURS[1]
    }
    start = {name: {0.0: Dot(1.0, 1.0, 1.0), **curve} for name, curve in found.items()}
    return line_chart(_lines(start, colours), Axes("one point put at, mean radii", "similarity to the original"))


def _lines(found: Curves, shown: Mapping[str, str]) -> list[Line]:
    return [
        Line(name, list(curve), list(curve.values()), shown.get(name, ""))
        for name, curve in sorted(found.items(), key=lambda item: item[0])
    ]


def _auc_chart(auc: Mapping[str, Curve]) -> str:
    lines = [
        Line(f"on the {side} space", list(curve), list(curve.values()), COLOURS[number])
        for number, (side, curve) in enumerate(auc.items())
    ]
    axes = Axes("class moved by, mean radii", "area under the curve", ticks=_ticks())
    return line_chart(lines, axes, height=260)


def _picture_caption(pictured: str) -> str:
    return (
        f"t-SNE of the original and of {pictured}: by class (the moved one dark), and by distortion, ranked over the "
        "points: light blue little, dark red much. Every point tells its id and class when it is pointed at."
    )


def _pictures(groups: Mapping[str, xr.Dataset], moved: Sequence[Moved], pictured: str) -> str:
    drawn, maps = groups["embeddings/points"], groups["maps/points"]
    one = next(one for one in moved if one.name == pictured)
    layer = str(drawn["space"].values[0]).partition("/")[2]
    points = [str(name) for name in drawn["point"].values]
    labels = [str(label) for label in drawn["label"].values]
    kinds = sorted(set(labels))
    palette = {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(kinds)} | {one.label: "#1b1f24"}
    names = [f"{name}: class {label}" for name, label in zip(points, labels, strict=True)]
    original, other = (f"{model}/{layer}" for model in (one.network, pictured))
    place = [
        number
        for number, pair in enumerate(zip(maps["source"].values.tolist(), maps["target"].values.tolist(), strict=True))
        if set(pair) == {original, other}
    ]
    if not place:
        return ""
    pair = maps.isel(pair=place[0]).sel(point=drawn["point"])
    of_other = pair["target_distortion" if str(pair["target"].values) == other else "source_distortion"].values
    ranks = np.argsort(np.argsort(of_other)) / max(len(of_other) - 1, 1)
    by_class = [palette[label] for label in labels]
    charts = [
        (original, by_class, "the original, by class"),
        (other, by_class, f"class {one.label} moved by {one.shift:g} radii, by class"),
        (other, [share_colour(float(rank)) for rank in ranks], "the same, by distortion"),
    ]
    return side_by_side(
        [
            points_in_plane(
                [tuple(xy) for xy in drawn["tsne"].sel(space=space).values.tolist()],
                colours,
                names,
                title=title,
                size=340,
            )
            for space, colours, title in charts
        ],
        n_columns=3,
    )
