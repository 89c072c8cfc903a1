"""What must not change an atlas does not change a byte of it; what must, does."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_atlas.pipeline import Outcome
from lfm_tasks.stages.scores import block as blocks
from lfm_tasks.stages.scores import cache, stage
from lfm_tasks.stages.scores import job as jobs
from lfm_tasks.stages.scores.block import BlockJob
from lfm_tasks.stores.atlas.files import read_atlas

Related = Callable[..., dict[str, Any]]
WriteZoo = Callable[..., Path]
Build = Callable[..., Outcome]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_rows_shuffled_together_with_their_ids__give_the_same_atlas(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(2)
    order = np.random.default_rng(7).permutation(120)
    layers, ids = models["model1"]
    shuffled = {**models, "model1": ({name: rows[order] for name, rows in layers.items()}, ids[order])}

    build(write_zoo(tmp_path / "a", models))
    build(write_zoo(tmp_path / "b", shuffled))

    assert contents(tmp_path / "a" / "atlas") == contents(tmp_path / "b" / "atlas")


def test_rows_shuffled_without_their_ids__are_seen(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(2)
    layers, ids = models["model1"]
    order = np.random.default_rng(7).permutation(120)
    spoilt = {**models, "model1": ({name: rows[order] for name, rows in layers.items()}, ids)}
    build(write_zoo(tmp_path / "a", models))
    build(write_zoo(tmp_path / "b", spoilt))
    place = {"measure": "overlap", "source": "model0/layer0", "target": "model1/layer0"}

    good, bad = (float(read_atlas(tmp_path / x / "atlas")["calibrated"].sel(place).item()) for x in "ab")

    assert good > 0.5
    assert bad < 0.1


@pytest.mark.parametrize("n_workers", [1, 2])
def test_dask_workers__give_the_bytes_of_one_process(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build, n_workers: int
) -> None:
    models = related_spaces(3)
    build(write_zoo(tmp_path / "a", models))
    catalog = write_zoo(tmp_path / "b", models) / "data_catalog.yaml"
    catalog.write_text(catalog.read_text() + f"cluster: {{n_workers: {n_workers}}}\n")

    build(tmp_path / "b", in_process=False)

    assert contents(tmp_path / "a" / "atlas") == contents(tmp_path / "b" / "atlas")


@pytest.mark.parametrize("measures", [["lfm", "overlap"], ["overlap", "cka_linear"]])
def test_bases_read_one_by_one__give_the_bytes_of_those_read_together(
    tmp_path: Path,
    related_spaces: Related,
    write_zoo: WriteZoo,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    measures: list[str],
) -> None:
    models = related_spaces(3)
    for name in "ab":
        write_zoo(tmp_path / name, models, measures=measures)
    build(tmp_path / "a")
    monkeypatch.setattr(blocks, "_PART_BYTES", 1)
    monkeypatch.setattr(blocks, "_PART_BYTES_OF_LARGE", 1)

    build(tmp_path / "b")

    assert blocks.part_side(120, 8, 0) == 1
    assert contents(tmp_path / "a" / "atlas") == contents(tmp_path / "b" / "atlas")


def test_small_blocks__have_what_is_computed_of_each_space_before_and_give_the_same_bytes(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = related_spaces(4)
    rows, ids = models["model3"]
    # A layer with a row whose features are all the same, which RSA refuses: its pairs say so, the others have scores.
    spoilt = rows["layer1"].copy()
    spoilt[7] = 0.5
    models["model3"] = ({**rows, "layer1": spoilt}, ids)
    measures = ["cka_rbf_half_median", "cka_linear", "rsa_pearson_rdm_spearman", "mutual_knn_10_cosine"]
    for name in "ab":
        write_zoo(tmp_path / name, models, measures=measures)
    build(tmp_path / "a")
    given: list[int] = []

    def store_block(job: BlockJob) -> None:
        given.append(len(job.kept))
        # Only what traveled with the block is there, as in another process.
        cache._KEPT.clear()
        jobs.store_block(job)

    monkeypatch.setattr(stage, "BLOCK_SIDE", 1)
    monkeypatch.setattr(stage, "store_block", store_block)
    build(tmp_path / "b")

    # Blocks of up to 2 x 2 of eight spaces: what kernels need of each is small, tables of ranks are not.
    assert len(given) == 10
    assert max(given) == 4 * 2
    status = read_atlas(tmp_path / "b" / "atlas")["status"]
    found = status.sel(measure="rsa_pearson_rdm_spearman", source="model3/layer1", target="model0/layer0")
    assert status.attrs["flag_meanings"].split()[int(found.item())] == "constant_rows"
    assert contents(tmp_path / "a" / "atlas") == contents(tmp_path / "b" / "atlas")


def test_second_run__computes_nothing_and_leaves_the_atlas_alone(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    build(folder)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "atlas").rglob("*")}

    outcome = build(folder)

    assert not any(outcome.computed.values())
    assert outcome.reused.items() >= {"activations": 4, "bases": 4, "scores": 10, "maps": 1, "atlas": 1}.items()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "atlas").rglob("*")} == before


def test_added_model__costs_only_what_touches_it(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(3)
    build(write_zoo(tmp_path / "grown", {name: models[name] for name in ("model0", "model1")}))

    outcome = build(write_zoo(tmp_path / "grown", models))
    build(write_zoo(tmp_path / "whole", models))

    # Two spaces more beside four: each with the four, with itself, and the two with each other.
    assert (
        outcome.computed.items()
        >= {"activations": 2, "bases": 2, "scores": 2 * 4 + 2 + 1, "maps": 2, "atlas": 1}.items()
    )
    assert contents(tmp_path / "grown" / "atlas") == contents(tmp_path / "whole" / "atlas")


def test_renamed_model__is_not_computed_again(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    models = related_spaces(2)
    build(write_zoo(tmp_path, models))

    outcome = build(write_zoo(tmp_path, {"another": models["model0"], "model1": models["model1"]}))

    assert outcome.computed.items() >= {"activations": 0, "bases": 0, "scores": 0, "maps": 0, "atlas": 1}.items()


def test_same_name_with_other_bytes__is_computed_again(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    build(write_zoo(tmp_path, related_spaces(2)))
    changed = related_spaces(2)
    changed["model1"][0]["layer0"][3, 2] += 0.5

    outcome = build(write_zoo(tmp_path, changed))

    assert (outcome.computed["activations"], outcome.computed["bases"]) == (1, 1)


ALL_BASES = {"activations": 0, "bases": 4, "scores": 10, "maps": 1, "atlas": 1}
ALL_SCORES = {"activations": 0, "bases": 0, "scores": 10, "maps": 0, "atlas": 1}


@pytest.mark.parametrize(
    ("setting", "computed"),
    [
        ({"graph": {"n_neighbors": 11}}, ALL_BASES),
        ({"graph": {"n_neighbors": 10, "metric": "euclidean"}}, ALL_BASES),
        ({"graph": {"n_neighbors": 10, "kernel": "gaussian"}}, ALL_BASES),
        ({"n_eigenpairs": 7}, ALL_BASES),
        ({"null": {"n_permutations": 20}}, ALL_SCORES),
        ({"null": {"n_permutations": 19, "seed": 1}}, ALL_SCORES),
        ({"measures": ["overlap"]}, {"activations": 0, "bases": 0, "scores": 0, "atlas": 1}),
        ({"measures": ["overlap", "lfm_raw"]}, ALL_SCORES),
        ({"max_points": 100}, {"activations": 4, "bases": 4, "scores": 10, "maps": 1, "atlas": 1}),
    ],
)
def test_another_parameter__is_another_unit_for_what_it_changes(
    tmp_path: Path,
    related_spaces: Related,
    write_zoo: WriteZoo,
    build: Build,
    setting: dict[str, Any],
    computed: dict[str, int],
) -> None:
    models = related_spaces(2)
    build(write_zoo(tmp_path, models))

    assert build(write_zoo(tmp_path, models, **setting)).computed.items() >= computed.items()


def test_folder_moved_elsewhere__needs_nothing_computed(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    build(write_zoo(tmp_path / "here", related_spaces(2)))
    shutil.move(tmp_path / "here", tmp_path / "there")
    os.utime(tmp_path / "there" / "model0.npz", (1, 1))

    assert not any(build(tmp_path / "there").computed.values())


def test_unrelated_random_features__are_within_noise_of_0_after_calibration(
    tmp_path: Path, write_zoo: WriteZoo, build: Build
) -> None:
    generator = np.random.default_rng(3)
    ids = np.array([f"p{number:03}" for number in range(300)])
    models = {
        f"random{number}": ({"layer": generator.standard_normal((300, 20))}, ids[generator.permutation(300)])
        for number in range(6)
    }
    folder = write_zoo(tmp_path, models, null={"n_permutations": 99})
    build(folder)
    atlas = read_atlas(folder / "atlas").sel(dataset="probe")
    different = ~np.eye(6, dtype=bool)
    for measure in ("lfm", "overlap"):
        values = {name: atlas[name].sel(measure=measure).values[different] for name in ("calibrated", "p_value")}
        spread = (atlas["null_q95"] - atlas["null_mean"]).sel(measure=measure).values[different]
        scale = 1 - atlas["null_mean"].sel(measure=measure).values[different]

        # Within what permuted rows give themselves; on average, closer still.
        assert (np.abs(values["calibrated"]) < 3 * spread / scale).all(), measure
        assert abs(values["calibrated"].mean()) < (spread / scale).mean(), measure
        assert np.median(values["p_value"]) > 0.1, measure


def test_damaged_unit__is_put_aside_and_made_again(
    tmp_path: Path, related_spaces: Related, write_zoo: WriteZoo, build: Build
) -> None:
    folder = write_zoo(tmp_path, related_spaces(2))
    build(folder)
    published = contents(tmp_path / "atlas")
    receipt = sorted((tmp_path / ".lfm-atlas" / "receipts" / "bases").iterdir())[0]
    receipt.write_text(receipt.read_text().replace("exact", "exalt"))

    outcome = build(folder)

    assert outcome.computed["bases"] == 1
    assert contents(tmp_path / "atlas") == published
    assert len(list((tmp_path / ".lfm-atlas" / "quarantine").iterdir())) == 1
