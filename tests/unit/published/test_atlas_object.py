"""`Atlas` as an object of Python: a collection of spaces, a choice of them, tables, graphs and pictures."""

import re
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.rows import Rows
from lfm_tasks.stores.atlas.schema import AtlasError

FIRST, SECOND = "model0/layer0", "model1/layer0"


def test_atlas__is_a_collection_of_spaces(small: Atlas) -> None:
    assert len(small) == len(small.spaces) == 8
    assert list(small) == small.spaces
    assert "model0" in small
    assert FIRST in small
    assert "model9" not in small
    assert 3 not in small
    assert small[FIRST] == small.nearest(FIRST)
    assert small[FIRST, SECOND].equals(small.pair(FIRST, SECOND))
    with pytest.raises(AtlasError, match="did you mean 'model0'"):
        small["modle0"]


def test_atlas_without_spaces__is_true(small: Atlas) -> None:
    empty = replace(small, scores=small.scores.isel(source=[], target=[]))

    assert len(empty) == 0
    assert empty


def test_symmetric_matrix__is_the_mean_of_both_directions_and_says_so(small: Atlas) -> None:
    directed, both = small.matrix(), small.matrix(symmetric=True)

    assert np.array_equal(both.values, (directed.values + directed.values.T) / 2, equal_nan=True)
    assert directed.attrs["direction"] == "from source to target"
    assert both.attrs["direction"] == "mean of both directions"
    assert not np.array_equal(both.values, directed.values, equal_nan=True)


def test_nearest__prints_as_a_table_and_becomes_a_frame(small: Atlas) -> None:
    rows = small.nearest("model0", n=2)

    lines = repr(rows).splitlines()
    assert len(lines) == 3
    assert lines[0].split()[:2] == ["name", "value"]
    assert lines[1].split()[:2] == ["model2", f"{rows[0]['value']:.3f}"]
    assert rows.to_frame().equals(pd.DataFrame(list(rows)))
    assert repr(Rows()) == "no rows"


def test_rows__escape_names_in_html(small: Atlas) -> None:
    html = small.nearest(FIRST)._repr_html_()

    assert "&lt;/td&gt;|[red]x" in html
    assert "</td>|" not in html


def test_choice__keeps_the_numbers_of_its_spaces(small: Atlas) -> None:
    chosen = small.sel(["model0", "model[12]"], layers="layer0")

    assert chosen.spaces == [FIRST, SECOND, "model2/layer0"]
    assert chosen.models == ["model0", "model1", "model2"]
    kept = small.scores["score"].sel(source=chosen.spaces, target=chosen.spaces)
    assert np.array_equal(chosen.scores["score"].values, kept.values, equal_nan=True)
    assert "3 of 3 models" in repr(chosen)
    assert "6 directed, 0 without a score" in repr(chosen)
    assert set(chosen.to_frame()["source"]) == set(chosen.spaces)
    assert {one.source for one in chosen.relations()} <= set(chosen.models)
    assert chosen.map(FIRST, SECOND).equals(small.map(FIRST, SECOND))


def test_choice__counts_pairs_without_a_score(small: Atlas) -> None:
    assert "2 directed, 2 without a score" in repr(small.sel("model[03]", layers="layer0"))


def test_choice_by_meta__takes_the_models_that_say_so(small: Atlas) -> None:
    models = [entry | {"meta": {"family": entry["name"][-1]}} for entry in small.summary["models"]]
    told = replace(small, summary={**small.summary, "models": models})

    assert told.sel(meta={"family": "2"}).models == ["model2"]
    with pytest.raises(
        AtlasError, match=r"got no space of models \*, layers \*, meta .*'9'.*, expected at least one of"
    ):
        told.sel(meta={"family": "9"})


def test_graph__has_spaces_and_the_pairs_beyond_chance(small: Atlas) -> None:
    networkx = pytest.importorskip("networkx")

    graph, few = small.to_networkx(max_q=1), small.to_networkx(max_q=1e-6)

    scores = small.scores.sel(dataset="probe", measure="overlap")
    assert isinstance(graph, networkx.DiGraph)
    assert list(graph) == list(small.names("probe").model_of)
    assert graph.edges[FIRST, SECOND]["score"] == float(scores["score"].sel(source=FIRST, target=SECOND))
    assert graph.nodes[FIRST] == {"model": "model0", "layer": "layer0", "depth": 0.0}
    assert not graph.has_edge(FIRST, "model3/layer0")
    assert all(edge["q_value"] <= 1e-6 for _, _, edge in few.edges(data=True))


def test_html__has_a_small_matrix_with_escaped_names(small: Atlas) -> None:
    html = small._repr_html_()

    assert html.count("<table>") == 2
    assert "calibrated overlap, mean of both directions" in html
    assert len(re.findall("color-mix", html)) == np.isfinite(small.matrix().values).sum()


@pytest.mark.parametrize(
    ("module", "advice", "call"),
    [
        ("networkx", "networkx", lambda atlas: atlas.to_networkx()),
        ("matplotlib", r"'lfm-atlas\[plot\]'", lambda atlas: atlas.plot.matrix()),
    ],
)
def test_missing_package__is_a_sentence(
    module: str, advice: str, call: object, small: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(AtlasError, match=f"got no {module}, .* Do: pip install {advice}"):
        call(small)  # type: ignore[operator]


def test_pictures__show_what_the_atlas_says(small: Atlas) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")

    matrix, layers = small.plot.matrix(), small.plot.layers("model0", "model2")
    functional_map, tree = small.plot.map(FIRST, SECOND), small.plot.tree()
    bars = small.plot.nearest("model0", n=2)

    shown = matrix.images[0].get_array().filled(np.nan)
    assert np.array_equal(shown, small.matrix(symmetric=True).values, equal_nan=True)
    assert matrix.get_title() == "overlap, mean of both directions"
    assert layers.images[0].get_array().shape == (3, 2)
    assert np.array_equal(functional_map.images[0].get_array(), small.map(FIRST, SECOND).values)
    assert {label.get_text() for label in tree.get_yticklabels()} == set(small.models)
    assert [bar.get_width() for bar in bars.patches][::-1] == [row["value"] for row in small.nearest("model0", n=2)]
    with pytest.raises(AtlasError, match="got 'model0/layer0', expected a model"):
        small.plot.layers(FIRST, "model2")
    pyplot.close("all")


def test_picture__is_drawn_on_given_axes(small: Atlas) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    axes = pyplot.subplots()[1]

    assert small.plot.nearest(FIRST, ax=axes) is axes
    pyplot.close("all")
