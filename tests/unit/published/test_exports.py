"""Exports: what other programs read from them is what the atlas says."""

import csv
import shutil
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr

from lfm_atlas import AtlasError, open_atlas
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.published.exports import (
    FORMULA_PREFIXES,
    Points,
    embedded_points,
    escape_formula,
    export_csv,
    export_embedding_atlas,
    export_graphml,
    export_projector,
    space_points,
)
from lfm_tasks.stores.atlas.files import read_atlas, write_atlas, write_edges
from lfm_tasks.stores.atlas.publication import publish


@pytest.mark.parametrize("text", [*(f"{prefix}cmd" for prefix in FORMULA_PREFIXES), "'x", "''", "", "a=b", "layer1"])
def test_escape_formula__can_be_undone_and_starts_no_formula(text: str) -> None:
    assert unescape_formula(escape_formula(text)) == text
    assert not escape_formula(text).startswith(FORMULA_PREFIXES)


def unescape_formula(cell: str) -> str:
    return cell.removeprefix("'")


def test_csv__holds_the_long_table(small: Atlas, tmp_path: Path) -> None:
    export_csv(small, tmp_path / "edges.csv")

    expected = small.to_frame()
    # Older pandas reads floats to the last digit but one: Python reads them here.
    found = pd.read_csv(tmp_path / "edges.csv", converters={"score": lambda text: float(text or "nan")})
    for name in ("source", "target", "measure", "status"):
        assert found[name].map(unescape_formula).tolist() == expected[name].tolist()
    np.testing.assert_array_equal(found["score"].to_numpy(), expected["score"].to_numpy())
    assert pl.read_csv(tmp_path / "edges.csv").schema["score"] == pl.Float64


def test_csv__disarms_names_that_are_formulas(small_folder: Path, tmp_path: Path) -> None:
    attack = '=HYPERLINK("http://evil","x"),\r\n-1'
    with publish(tmp_path / "atlas", "key") as folder:
        write_atlas(read_atlas(small_folder / "atlas"), {}, folder)
        shutil.copy(small_folder / "atlas" / "summary.json", folder)
        columns = {"source": [attack, "a;=1+1"], "comparisons": [["one", "two"], []], "n_common": [3, 4]}
        write_edges([{**columns, "score": [-0.5, None]}], folder)
    with open_atlas(tmp_path / "atlas") as atlas:
        export_csv(atlas, tmp_path / "edges.csv")

    with (tmp_path / "edges.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["source", "comparisons", "n_common", "score"], [f"'{attack}", "one two", "3", "-0.5"],
                    ["a;=1+1", "", "4", ""]]  # fmt: skip
    # In quotes, so that a spreadsheet that splits at ; makes no cell of the rest.
    assert b'"a;=1+1"' in (tmp_path / "edges.csv").read_bytes()


def test_graphml__is_the_graph_of_the_chosen_pairs(small: Atlas, tmp_path: Path) -> None:
    export_graphml(small, tmp_path / "atlas.graphml", min_value=0.53)

    graph = nx.read_graphml(tmp_path / "atlas.graphml")
    values = small.matrix(reduce=None)
    label = nx.get_node_attributes(graph, "label")
    assert sorted(label.values()) == sorted(small.spaces)
    assert graph.is_directed()
    found = {(label[source], label[target]): data["calibrated"] for source, target, data in graph.edges(data=True)}
    names = values["source"].values
    expected = {(names[s], names[t]): float(values[s, t]) for s, t in np.argwhere(values.values >= 0.53) if s != t}
    assert found == expected
    assert ("model0/layer0", "model0/</td>|[red]x") in found
    assert {data["model"] for _, data in graph.nodes(data=True)} == set(small.models)


def test_graphml__without_a_choice_keeps_what_is_significant(small: Atlas, tmp_path: Path) -> None:
    export_graphml(small, tmp_path / "default.graphml")
    export_graphml(small, tmp_path / "q.graphml", max_q=0.05)

    assert (tmp_path / "default.graphml").read_bytes() == (tmp_path / "q.graphml").read_bytes()
    q = small.scores["q_value"].sel(dataset="probe", measure="overlap").values
    assert nx.read_graphml(tmp_path / "q.graphml").number_of_edges() == int((q <= 0.05).sum())
    bare = Atlas(
        small.folder,
        small.key,
        small.summary,
        small.scores.assign(q_value=small.scores["q_value"] * np.nan),
        small.store,
        small.manifest,
    )
    with pytest.raises(AtlasError, match=r"got no q_value in the atlas, expected it to choose edges. Set"):
        export_graphml(bare, tmp_path / "none.graphml")


def test_graphml__replaces_what_xml_cannot_hold(small: Atlas, tmp_path: Path) -> None:
    told = np.array(["\x00<&"] * len(small.spaces), dtype=object)
    scores = small.scores.assign_coords(source_meta_note=("source", told))
    export_graphml(
        Atlas(small.folder, small.key, small.summary, scores, small.store, small.manifest), tmp_path / "atlas.graphml"
    )

    nodes = nx.read_graphml(tmp_path / "atlas.graphml").nodes(data=True)
    assert {data["meta_note"] for _, data in nodes} == {"\ufffd<&"}


def test_projector__has_a_row_for_each_space(small: Atlas, tmp_path: Path) -> None:
    points = space_points(small, 50)
    export_projector(points, tmp_path / "projector")

    tensors = np.loadtxt(tmp_path / "projector" / "tensors.tsv", delimiter="\t")
    told = pd.read_csv(tmp_path / "projector" / "metadata.tsv", sep="\t", quoting=csv.QUOTE_NONE)
    assert len(tensors) == len(told) == len(small.spaces)
    assert told["space"].tolist() == small.matrix(reduce=None)["source"].values.tolist()
    assert {"space", "model", "layer", "depth"} <= set(told)
    copy = told["space"].tolist().index("model0/</td>|[red]x")
    own = told["space"].tolist().index("model0/layer0")
    assert np.linalg.norm(tensors[copy] - tensors[own]) < 1e-5
    assert "classical scaling of 1 - calibrated overlap, stress 0." in points.note


def test_projector__has_a_header_also_for_one_column(tmp_path: Path) -> None:
    export_projector(Points(np.eye(2), {"id": ["a\tb", "c\nd"]}, ""), tmp_path)

    assert (tmp_path / "metadata.tsv").read_text() == "number\tid\n0\ta b\n1\tc d\n"


def test_embedding_atlas__has_places_texts_and_neighbors(small: Atlas, tmp_path: Path) -> None:
    export_embedding_atlas(space_points(small, 2), tmp_path / "spaces.parquet")

    table = pl.read_parquet(tmp_path / "spaces.parquet")
    assert table.schema["x"] == table.schema["y"] == pl.Float64
    assert table["text"].to_list() == table["space"].to_list()
    own = table["space"].to_list().index("model0/layer0")
    near = table["neighbors"][own]
    assert table["space"][near["ids"][0]] == "model0/</td>|[red]x"
    assert near["distances"] == sorted(near["distances"])
    assert own not in near["ids"]


def test_points_of_a_space__are_those_that_the_atlas_embeds(small: Atlas, small_folder: Path, tmp_path: Path) -> None:
    tsne = np.stack([np.arange(6.0).reshape(3, 2), np.full((3, 2), np.nan)])
    tsne[0, 1] = np.nan
    texts = {"space": ["model0/layer0", "model1/layer0"], "point": ["p0", "p1", "p2"]}
    coordinates = {name: np.array(values, dtype=object) for name, values in texts.items()}
    labels = ("point", np.array(["cat", "dog", ""], dtype=object))
    group = xr.Dataset({"tsne": (("space", "point", "axis"), tsne)}, {**coordinates, "label": labels})
    with publish(tmp_path / "atlas", "key") as folder:
        write_atlas(read_atlas(small_folder / "atlas"), {"embeddings/probe": group}, folder)
        shutil.copy(small_folder / "atlas" / "summary.json", folder)
    with open_atlas(tmp_path / "atlas") as atlas:
        points = embedded_points(atlas, "model0/layer0")
        with pytest.raises(AtlasError, match="got no embedding of 'model2/layer0' in the atlas"):
            embedded_points(atlas, "model2/layer0")

    assert points.coordinates.tolist() == [[0, 1], [4, 5]]
    assert points.metadata == {"id": ["p0", "p2"], "label": ["cat", ""]}
    with pytest.raises(AtlasError, match="Leave --points-of out for the spaces themselves"):
        embedded_points(small, "model0/layer0")
