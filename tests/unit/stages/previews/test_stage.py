"""What an atlas shows of its inputs: chosen points only, nothing where that is switched off or cannot be shown."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.opening import read_dataset
from lfm_tasks.stages.previews.stage import N_NEIGHBORS, N_WORST, _kind
from lfm_tasks.stores.atlas.files import read_groups, read_json

Zoo = Callable[..., Path]


@pytest.fixture
def zoo(tmp_path: Path, related_spaces: Callable[..., Any], write_zoo: Zoo) -> Zoo:
    def write(shown: np.ndarray | None = None, **atlas: Any) -> Path:
        models = related_spaces(3, n_points=60)
        dataset = {} if shown is None else {"previews": shown}
        return write_zoo(tmp_path, models, dataset, measures=["overlap"], collection=None, **atlas)

    return write


def texts(n: int = 60) -> np.ndarray:
    return np.array([f"<b>text {number}</b>" for number in range(n)])


def test_previews__are_those_of_the_points_that_differ_most_and_of_true_neighbors(
    zoo: Zoo, build: Callable[..., Any]
) -> None:
    folder = zoo(texts(), graph={"n_neighbors": 10, "metric": "euclidean"})
    build(folder)

    groups = read_groups(folder / "atlas")

    group, maps = groups["previews/probe"], groups["maps/probe"]
    points = [str(name) for name in group["point"].values]
    assert [str(text) for text in group["preview"].values] == [f"<b>text {int(name[1:])}</b>" for name in points]
    ends = str(group["source"].values[0]), str(group["target"].values[0])
    pair = list(zip(maps["source"].values, maps["target"].values, strict=True)).index(ends)
    worst = np.argsort(-maps["source_distortion"].values[pair].astype(float), kind="stable")[:N_WORST]
    shown = [points[place] for place in group["worst"].values[0, :N_WORST]]
    assert shown == [str(maps["point"].values[place]) for place in worst]
    model, layer = ends[0].split("/")
    stored, ids = np.load(folder / f"{model}.npz")[layer].astype(float), np.load(folder / f"{model}_ids.npy")
    row = list(ids).index(shown[0])
    nearest = np.argsort(np.linalg.norm(stored - stored[row], axis=1))[1 : N_NEIGHBORS + 1]
    assert [points[place] for place in group["neighbors"].values[0, 0, 0]] == [str(ids[place]) for place in nearest]
    page = (folder / "atlas" / "report.html").read_text()
    assert 'id="previews"' in page
    assert "<b>text" not in page


def test_previews__are_switched_off_by_one_key_and_absent_where_inputs_are_only_numbers(
    zoo: Zoo, build: Callable[..., Any]
) -> None:
    folder = zoo(texts(), previews=False)
    build(folder)
    hidden = read_json(folder / "atlas" / "summary.json")["key"]

    assert "previews/probe" not in read_groups(folder / "atlas")
    assert "text 1" not in (folder / "atlas" / "report.html").read_text()
    shown = zoo(texts())
    build(shown)
    assert "previews/probe" in read_groups(shown / "atlas")
    assert read_json(shown / "atlas" / "summary.json")["key"] != hidden
    assert _kind(read_dataset("probe", read_catalog(zoo() / "data_catalog.yaml"))) == ""


def test_shipped_zoo__shows_its_digits(zoo_folder_built: Path) -> None:
    group = read_groups(zoo_folder_built / "atlas")["previews/digits"]

    assert group.attrs["kind"] == "image"
    assert all(base64.b64decode(str(one)).startswith(b"\x89PNG") for one in group["preview"].values)


@pytest.mark.parametrize(
    ("previews", "message"),
    [
        (texts(59), "dataset probe: got 59 previews and 60 ids, expected as many. Give the previews of these ids"),
        (np.zeros((60, 5)), "got previews of shape (60, 5) and type float64, expected pictures"),
    ],
)
def test_previews__that_do_not_fit_are_refused(zoo: Zoo, previews: np.ndarray, message: str) -> None:
    catalog = read_catalog(zoo(previews) / "data_catalog.yaml")

    with pytest.raises(DataError) as raised:
        read_dataset("probe", catalog)

    assert message in str(raised.value)
