"""Pairs of spaces of two datasets: what cannot be mapped is told, and ids take no part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.config import AtlasConfig, GraphConfig, NullConfig
from lfm_tasks.spaces import Space
from lfm_tasks.spectral.bases.automatic import BasisNumbers
from lfm_tasks.spectral.bases.full_map import DIAGNOSTICS
from lfm_tasks.stages.across_datasets.job import AcrossJob, AcrossSettings, store_across
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.stages.bases.job import store_basis
from lfm_tasks.stages.bases.stage import basis_job
from lfm_tasks.stages.inventory.correspondence import Correspondence, Labels, store_labels
from lfm_tasks.stores.units.recordings import Recording
from lfm_tasks.stores.units.store import UnitStore

ATLAS = AtlasConfig(graph=GraphConfig(n_neighbors=8), n_eigenpairs=6, null=NullConfig(n_permutations=9))
IDS = np.array([f"{row:03}" for row in range(60)])
CLASSES = np.arange(60) % 3


def stored(store: UnitStore, name: str, rows: np.ndarray) -> tuple[str, str]:
    """Store activations and their basis; return their keys."""
    with store.commit("activations", name) as unit:
        recording = Recording(unit, IDS, keeps_journal=False)
        recording.add(rows)
        recording.finish()
    recorded = RecordedSpace(Space("any", name, "layer"), name, 0.0, **store.receipt("activations", name).facts)
    job = basis_job(store, ATLAS, recorded, BasisNumbers(8, 6))
    store_basis(job)
    return job.key, name


@pytest.fixture
def job(tmp_path: Path) -> AcrossJob:
    """Make the job of one space against a turned copy of it, on a dataset with the same ids in another order."""
    store = UnitStore(tmp_path)
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((3, 5))[CLASSES] * 2 + generator.standard_normal((60, 5))
    order = generator.permutation(60)
    turn = np.linalg.qr(generator.standard_normal((5, 5)))[0]
    keys = dict([stored(store, "first", rows), stored(store, "second", (rows @ turn)[order])])
    source, target = keys
    labels = store_labels(
        store, {"source": Labels(IDS, CLASSES.astype(np.int32)), "target": Labels(IDS, CLASSES[order].astype(np.int32))}
    )
    return AcrossJob(
        store, "block", AcrossSettings("rest", ("lfm", "overlap")), ((source, target),), keys, ATLAS,
        Correspondence("unsupervised"), (labels["source"], labels["target"]),
    )  # fmt: skip


def scored(job: AcrossJob) -> tuple[np.ndarray, np.ndarray, list[list[object]]]:
    store_across(job)
    with job.store.open("across_datasets", job.key) as unit:
        values, diagnostics = unit.read("values"), unit.read("diagnostics")
    return values, diagnostics, job.store.receipt("across_datasets", job.key).facts["refusals"]


@pytest.mark.parametrize(
    "correspondence",
    [
        Correspondence("unsupervised", n_samples=60),
        Correspondence("labels", n_samples=60),
    ],
)
def test_turned_copy__is_found_both_ways_whatever_ids_say(correspondence: Correspondence, job: AcrossJob) -> None:
    values, diagnostics, refusals = scored(replace(job, correspondence=correspondence))

    assert refusals == []
    np.testing.assert_allclose(values[0, :, :, 0], 1, atol=1e-6)
    residual, found = (list(DIAGNOSTICS).index(name) for name in ("map_residual", "points_found"))
    assert (diagnostics[0, :, residual] < 1e-6).all()
    # By their ids, all points were in the wrong places.
    assert np.isnan(diagnostics[..., found]).all()


def test_closed_form__of_classes_has_chance_and_of_nothing_has_none(job: AcrossJob) -> None:
    by_class, _, _ = scored(replace(job, key="by class", correspondence=Correspondence("labels", refine="none")))
    by_shape, diagnostics, _ = scored(replace(job, correspondence=Correspondence("unsupervised", refine="none")))

    assert np.isfinite(by_class).all()
    assert (by_class[0, :, 1, 3] > 0).all()
    assert np.isfinite(by_shape[..., 0]).all()
    assert np.isnan(by_shape[..., 1:]).all()
    assert np.isfinite(diagnostics[0, :, :2]).all()


def test_pair_without_common_classes__is_told_and_has_no_score(job: AcrossJob) -> None:
    others = store_labels(job.store, {"target": Labels(IDS, (CLASSES + 7).astype(np.int32))})
    without = replace(job, correspondence=Correspondence("labels"), labels=(job.labels[0], others["target"]))

    values, diagnostics, refusals = scored(without)

    assert np.isnan(values).all()
    assert np.isnan(diagnostics).all()
    assert [(row, reason) for row, reason, _ in refusals] == [(0, "one_class")]


def test_id_without_a_label__is_told(job: AcrossJob) -> None:
    few = store_labels(job.store, {"target": Labels(IDS[1:], CLASSES[1:].astype(np.int32))})
    lacking = replace(job, correspondence=Correspondence("labels"), labels=(job.labels[0], few["target"]))

    _, _, refusals = scored(lacking)

    assert refusals == [[0, "bad_ids", "got 1 ids without a label, first '000'. Label every id of the dataset"]]
