"""The catalog that ``init --from`` writes for files of activations: it validates, or says what it could not know."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.cli.run import init
from lfm_atlas.console import OK, USAGE, no_progress
from lfm_tasks.catalog import Catalog, read_catalog
from lfm_tasks.drafting import Draft, draft_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.stages.inventory.stage import Zoo, validate_catalog

N = 80
IDS = np.array([f"img{number:03}" for number in range(N)])
generator = np.random.default_rng(0)
ROWS = generator.standard_normal((N, 6)).astype(np.float32)
TOKENS = generator.standard_normal((N, 4, 6)).astype(np.float32)


def drafted(home: Path, zoo: str, **options: Any) -> tuple[Draft, Catalog, Zoo]:
    draft = draft_catalog(home / zoo, home, **options)
    (home / "data_catalog.yaml").write_text(draft.text, encoding="utf-8")
    catalog = read_catalog(home / "data_catalog.yaml")
    return draft, catalog, validate_catalog(catalog, no_progress)


def layers(zoo: Zoo) -> dict[str, list[str]]:
    assert zoo.failures == ()
    found: dict[str, list[str]] = {}
    for planned in zoo.spaces:  # in the order of their names
        found.setdefault(planned.space.model, []).append(planned.space.layer)
    return found


def save(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values)


def test_archives__with_all_that_lies_beside_activations(tmp_path: Path) -> None:
    (tmp_path / "acts").mkdir()
    for model in ("a", "b"):
        arrays = {"h": TOKENS, "attention_mask": np.ones((N, 4), int), "input_ids": np.ones((N, 4), int)}
        np.savez(tmp_path / f"acts/{model}.npz", rows=ROWS, ids=IDS, labels=np.arange(N) % 3, lr=0.1, **arrays)

    draft, catalog, zoo = drafted(tmp_path, "acts/*.npz")

    assert layers(zoo) == {"a": ["h", "rows"], "b": ["h", "rows"]}
    assert draft.remarks == ("got layers of (points, tokens, features): pool: mean; or cls, last, max, flatten",)
    assert catalog.datasets["probe"].labels is not None
    model = catalog.model_on("a").activations
    assert model is not None
    assert model.mask is not None
    assert (model.mask.key, model.ids.key if model.ids else None) == ("attention_mask", "ids")
    assert "# 2: a, b" in draft.text


def test_a_file_a_layer_and_ids_beside_them(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        for layer in ("l2", "l10"):
            save(tmp_path / f"zoo/{model}/{layer}.npy", ROWS)
    (tmp_path / "zoo/ids.txt").write_text("\n".join(IDS))
    save(tmp_path / "labels.npy", np.arange(N))

    assert (
        draft_catalog(tmp_path / "zoo", tmp_path).text.splitlines()[1:]
        == (draft_catalog(tmp_path / "zoo/*/*.npy", tmp_path).text.splitlines()[1:])
    )
    _, catalog, zoo = drafted(tmp_path, "zoo/*/*.npy")

    assert layers(zoo) == {"m1": ["l10", "l2"], "m2": ["l10", "l2"]}
    assert catalog.datasets["probe"].model_dump(exclude_defaults=True) == {
        "ids": {"path": "zoo/ids.txt"},
        "labels": {"path": "labels.npy"},
    }


def test_a_folder_of_tables__whose_columns_are_features(tmp_path: Path) -> None:
    (tmp_path / "acts").mkdir()
    for model in ("a", "b"):
        rows = [",".join(["image_id", *(f"f{column}" for column in range(6))])]
        rows += [",".join([name, *map(str, row)]) for name, row in zip(IDS, ROWS, strict=True)]
        (tmp_path / f"acts/{model}.csv").write_text("\n".join(rows))

    _, catalog, zoo = drafted(tmp_path, "acts")

    assert layers(zoo) == {"a": ["a"], "b": ["b"]}
    assert catalog.model_on("a").activations is not None
    assert catalog.model_on("a").activations.columns == ("f[0-9]*",)
    assert zoo.spaces[0].size.n_features == 6


def test_one_file_without_ids__is_joined_by_rows_and_says_so(tmp_path: Path) -> None:
    save(tmp_path / "net.npy", ROWS[:30])
    draft, catalog, zoo = drafted(tmp_path, "net.npy")
    assert layers(zoo) == {"net": ["net"]}
    assert catalog.datasets["probe"].ids == "positional"
    assert any("ids: positional takes the rows of all files for the same points" in one for one in draft.remarks)


@pytest.mark.parametrize(
    ("of_point", "shape", "is_sure"),
    [((9, 4, 4), "nchw", True), ((4, 4, 9), "nhwc", True), ((2, 3, 4), "nchw", False)],
)
def test_maps__get_a_shape_that_is_called_a_guess_where_it_is_one(
    of_point: tuple[int, ...], shape: str, is_sure: bool, tmp_path: Path
) -> None:
    save(tmp_path / "net.npy", generator.standard_normal((N, *of_point)))
    draft, catalog, zoo = drafted(tmp_path, "net.npy")
    assert catalog.model_on("net").activations is not None
    assert catalog.model_on("net").activations.shape == shape
    assert any("is a guess, check it" in one for one in draft.remarks) != is_sure
    assert layers(zoo) == {"net": ["net"]}


def test_what_cannot_be_known__is_said(tmp_path: Path) -> None:
    for model, n_rows in (("a", N), ("b", N), ("c", N - 2)):
        save(tmp_path / f"acts/{model}.npy", ROWS[:n_rows])
    (tmp_path / "acts/d.npy").write_bytes(b"no array")
    save(tmp_path / "ids.npy", IDS)

    draft, _, zoo = drafted(tmp_path, "acts/*.npy")

    assert "# acts/c.npy has 78 rows, others 80. Give it ids of its own" in draft.text
    assert "#   d.npy: cannot be read" in draft.text
    assert {failure.model for failure in zoo.failures} == {"c", "d"}


def test_what_holds_no_activations__is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match=r"got no file that matches, expected activations"):
        draft_catalog(tmp_path / "*.npz", tmp_path)
    save(tmp_path / "x.npy", np.arange(9))
    with pytest.raises(DataError, match=r"got no array of \(points, features\), but None \(9,\), expected activations"):
        draft_catalog(tmp_path / "x.npy", tmp_path)
    assert init(tmp_path / "new", from_=tmp_path / "x.npy") == USAGE
    assert "expected activations. Name other files. [missing_source]" in capsys.readouterr().err
    save(tmp_path / "y.npy", ROWS)
    assert init(tmp_path / "new", from_=tmp_path / "y.npy") == OK
    assert "path: ../y.npy" in (tmp_path / "new/data_catalog.yaml").read_text()
