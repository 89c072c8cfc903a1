"""The curve of an upgrade: what it keeps for kin and for unlike models, what is chosen, what cannot be judged."""

import errno
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from lfm_atlas.cli.main import app
from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.upgrades.adapters import (
    BASELINES,
    RANK,
    FunctionalMaps,
    KnownPairs,
    corrected,
    fit_adapters,
    low_rank,
    orthogonal,
    residual_network,
    ridge,
    unchanged,
    unit_rows,
)
from lfm_tasks.upgrades.confidence import confidence_of
from lfm_tasks.upgrades.evidence import (
    CHOSEN,
    QUERIES,
    STORED,
    CurveOptions,
    Evidence,
    fit_and_choose,
    sizes_up_to,
    upgrade_evidence,
)
from lfm_tasks.upgrades.export import folder_for_maps, read_saved_map, save_upgrade
from lfm_tasks.upgrades.groups import clusters_by_name
from lfm_tasks.upgrades.ranking import nearest, searched
from lfm_tasks.upgrades.stores import common_rows, open_space, open_store
from lfm_tasks.upgrades.verdict import judge
from lfm_tasks.zoo import write_start

N, D = 260, 16


def clusters(seed: int = 0, n: int = N) -> np.ndarray:
    """Return rows that lie in clusters, as embeddings do."""
    generator = np.random.default_rng(seed)
    centers = generator.standard_normal((12, D))
    return centers[generator.integers(0, 12, n)] + 0.35 * generator.standard_normal((n, D))


OLD = clusters()
TURN = np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0]
KIN = OLD @ TURN + 0.02 * np.random.default_rng(2).standard_normal((N, D))
UNLIKE = np.random.default_rng(3).standard_normal((N, D))
FEW_PAIRS = ("orthogonal", "ridge", "low rank")  # a network needs more
QUICK = CurveOptions(sizes=(10,), n_draws=2, n_rows=70)


@pytest.fixture(scope="module")
def of_kin() -> Evidence:
    return upgrade_evidence(OLD, KIN, QUICK, labels=np.repeat(["a", "b"], N // 2))


def known_pairs(n: int, new: np.ndarray = KIN) -> KnownPairs:
    rows = np.arange(n)
    return KnownPairs(unit_rows(OLD), unit_rows(new), Anchors(rows, rows))


def test_kin_models__keep_nearly_all_and_are_carried_over(of_kin: Evidence) -> None:
    verdict = judge(of_kin, at_least=0.8)
    assert verdict.decision == "carry over"
    assert "of re-embedding's recall@10 survives" in verdict.sentence
    for direction in (QUERIES, STORED):
        assert of_kin.cell(direction, of_kin.sizes[-1], CHOSEN).recall > 0.85  # type: ignore[union-attr]


def test_unlike_models__are_told_to_re_embed() -> None:
    evidence = upgrade_evidence(OLD, UNLIKE, CurveOptions(sizes=(50,), n_draws=1, n_rows=100))
    verdict = judge(evidence)
    assert (verdict.decision, verdict.reembed) == ("re-embed", 1.0)
    assert verdict.sentence.startswith("re-embed: only")
    assert evidence.ceiling < 0.15


def test_chosen__is_never_behind_the_best_baseline_by_more_than_its_interval(of_kin: Evidence) -> None:
    for direction in (QUERIES, STORED):
        for size in of_kin.sizes:
            chosen = of_kin.cell(direction, size, CHOSEN)
            cells = [of_kin.cell(direction, size, name) for name in ("orthogonal", "ridge", "low rank")]
            best = max(cell.recall for cell in cells if cell is not None)
            assert chosen is not None
            assert chosen.recall > best - 0.02 - chosen.recall_reach


def test_few_pairs__of_kin_models_are_carried_by_a_functional_map() -> None:
    """Ten pairs do not determine a rotation of 48 dimensions; the shape of the spaces does the rest."""
    generator = np.random.default_rng(4)
    # A curved surface in many dimensions: what neighbors are says where each point is.
    angles = generator.uniform(0, 1, (400, 2)) * [2 * np.pi, 3.0]
    waves = [f(m * angles[:, 0] + n * angles[:, 1]) for m in range(3) for n in range(1, 5) for f in (np.sin, np.cos)]
    rows = np.stack(waves, axis=1) @ generator.standard_normal((24, 48))
    turned = rows @ np.linalg.qr(generator.standard_normal((48, 48)))[0]
    evidence = upgrade_evidence(rows, turned, CurveOptions(sizes=(10,), n_draws=1, n_rows=200, unpaired="same"))
    chosen, plain = (evidence.cell(QUERIES, 10, name) for name in (CHOSEN, "orthogonal"))
    assert chosen is not None
    assert plain is not None
    assert chosen.recall > plain.recall + 0.1


def test_evidence__does_not_depend_on_the_scale_of_rows_and_repeats(of_kin: Evidence) -> None:
    again = upgrade_evidence(8 * OLD, KIN, QUICK)  # a power of two changes no bit of a direction
    assert again.cells == of_kin.cells


def test_labels__say_where_it_fails(of_kin: Evidence) -> None:
    of_queries = [row for row in of_kin.groups if row[0] == QUERIES]
    assert {row[1] for row in of_queries} == {"a", "b"}
    assert of_queries[0][3] <= of_queries[1][3]


def test_reembedding__the_doubtful_brings_more_than_at_random() -> None:
    """The new model sees a quarter of the old space, one side of it, in another way: no linear map carries that."""
    side = OLD[:, 0] > np.quantile(OLD[:, 0], 0.75)
    evidence = upgrade_evidence(OLD, np.where(side[:, None], UNLIKE, KIN), CurveOptions(sizes=(), n_draws=2, n_rows=60))
    recalls = [row[1] for row in evidence.reembedded]
    assert recalls[-1] > recalls[0]
    assert recalls[-2] > evidence.at_random[-2] + 0.02


def test_all_pairs__end_the_curve() -> None:
    assert sizes_up_to((10, 100, 1000), 240) == (10, 100, 240)


def test_low_rank__is_of_low_rank_and_the_network_adds_to_ridge() -> None:
    wide = np.random.default_rng(5).standard_normal((200, 90))
    known = KnownPairs(wide, wide @ np.random.default_rng(6).standard_normal((90, 90)), known_pairs(200).pairs)
    assert np.linalg.matrix_rank(low_rank(known).matrix) == RANK
    network = residual_network(known_pairs(200))
    assert network is not None
    assert network.residual is not None
    assert np.array_equal(network.matrix, ridge(known_pairs(200)).matrix)
    assert residual_network(known_pairs(20)) is None


def test_orthogonal__recovers_a_rotation_and_keeps_the_type_of_rows() -> None:
    adapter = orthogonal(KnownPairs(OLD, OLD @ TURN, known_pairs(100).pairs))
    assert np.allclose(adapter.carry(OLD), OLD @ TURN)
    assert adapter.carry(OLD.astype(np.float32)).dtype == np.float32


def test_choice__takes_a_functional_map_only_if_it_leads() -> None:
    adapters, name = fit_and_choose(known_pairs(100), 10, 150)
    assert name in BASELINES
    assert "functional map" in adapters


def test_spaces_without_a_graph__leave_the_other_maps() -> None:
    known = known_pairs(20)
    assert "functional map" in fit_adapters(known, FunctionalMaps(known, 100))
    assert not dict(FunctionalMaps(known, 30).fit())  # so few rows have no basis


def test_held_out_pairs__leave_no_twin_among_the_source_rows() -> None:
    part = known_pairs(20).without(np.array([0, 7]))
    assert len(part.source) == N - 2
    assert len(part.target) == N
    assert np.array_equal(part.source_rows, unit_rows(OLD)[[*range(1, 7), *range(8, 20)]])
    assert np.array_equal(part.target_rows, unit_rows(KIN)[[*range(1, 7), *range(8, 20)]])


def test_ranking__is_that_of_sorted_scores() -> None:
    queries, stored = unit_rows(KIN[:30]), unit_rows(OLD @ TURN)
    truth = nearest(queries, stored, 5)
    assert np.array_equal(truth, np.argsort(-(queries @ stored.T), axis=1, kind="stable")[:, :5])
    found = searched(queries, stored, truth)
    assert (found.recall.min(), found.reciprocal_rank.min()) == (1.0, 1.0)


def test_confidence__of_what_is_carried_exactly_is_high_and_of_noise_low() -> None:
    rows, carried, noise = unit_rows(OLD), unit_rows(OLD @ TURN), unit_rows(UNLIKE)
    known = rows[:200], carried[:200]
    sure = confidence_of(rows[200:], carried[200:], rows[200:], known).value
    doubtful = confidence_of(rows[200:], noise[200:], unit_rows(noise[200:] @ TURN.T), known).value
    assert sure.min() > doubtful.max()


@pytest.mark.parametrize(
    ("old", "reason", "message"),
    [
        (np.ones((N, D)), "constant", "old: got one vector for every input"),
        (np.where(np.arange(N)[:, None] == 3, 0.0, OLD), "zero_rows", "first row 3"),
        (np.where(np.arange(N)[:, None] == 3, np.nan, OLD), "not_finite", "row 3"),
        (OLD[:1] * np.arange(1, N + 1)[:, None], "constant", "old: got one direction for every input"),
        (1 + 1e-12 * UNLIKE, "constant", "old: got one direction for every input"),
        (OLD[:, :1], "wrong_shape", "old: got vectors of 1 number, expected 2 or more"),
    ],
)
def test_rows_that_cannot_be_compared__say_why(old: np.ndarray, reason: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        upgrade_evidence(old, KIN, QUICK)
    assert raised.value.reason == reason


@pytest.mark.parametrize("factor", [1e200, 1e-200, 1e-310])
def test_numbers_whose_squares_are_none__have_directions(factor: float) -> None:
    np.testing.assert_allclose(unit_rows(factor * OLD), unit_rows(OLD), atol=1e-9 if factor > 1e-300 else 1e-2)
    single = (OLD * np.where(np.arange(N) % 2, 1e-30, 1e30)[:, None]).astype(np.float32)
    np.testing.assert_allclose(unit_rows(single), unit_rows(OLD), atol=1e-6)
    assert not unit_rows(np.zeros((2, D))).any()


def test_k__that_is_cut_is_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = str(files / "old.npz"), str(files / "new.npz"), "-k", "1000", "--sizes", "200", "--draws", "1"
    assert upgrade(*command, "--format", "json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert f"recall@{facts['k']} in place of recall@1000: a quarter of the stored inputs at most" in facts["notes"]


def test_too_few_inputs__say_so() -> None:
    with pytest.raises(DataError, match="got 30 common inputs, expected at least 40"):
        upgrade_evidence(OLD[:30], KIN[:30], QUICK)


def test_spaces_of_a_catalog__have_ids_and_labels(tmp_path: Path) -> None:
    write_start(tmp_path)
    catalog = read_catalog(tmp_path / "data_catalog.yaml")
    store = open_space("mlp_s0/relu4", catalog)
    assert store.shape == (797, 16)
    assert store.labels is not None
    assert len(set(store.labels)) == 10
    with pytest.raises(DataError, match="did you mean 'relu4'"):
        open_space("mlp_s0/relu", catalog)
    with pytest.raises(DataError, match="no model 'mlp'"):
        open_space("mlp/relu4", catalog)


def test_common_rows__are_those_of_the_ids_and_at_most_so_many(files: Path) -> None:
    old, new = (open_store(str(files / name)) for name in ("old.npz", "new.npz"))
    common = common_rows(old, new, 50)
    assert len(common.ids) == 50
    rows = [int(name[1:]) for name in common.ids]
    np.testing.assert_allclose(common.new, KIN[rows])
    np.testing.assert_allclose(common.old, OLD[rows], atol=1e-2)
    assert "50 of 240 common inputs were drawn" in common.notes


def upgrade(*arguments: str) -> int:
    try:
        return int(app(["upgrade", *arguments], result_action="return_value"))
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    ids = np.array([f"i{number}" for number in range(N)])
    order = np.random.default_rng(0).permutation(N)[:240]
    np.savez(tmp_path / "old.npz", ids=ids, vectors=OLD.astype(np.float16))
    np.savez(tmp_path / "new.npz", ids=ids[order], vectors=KIN[order], labels=np.arange(240) % 3)
    np.save(tmp_path / "plain.npy", OLD)
    np.save(tmp_path / "ids.npy", ids)
    broken = KIN.copy()
    broken[7, 0] = np.nan
    np.savez(tmp_path / "broken.npz", ids=ids, vectors=broken)
    np.savez(tmp_path / "other.npz", ids=np.char.add("x", ids), vectors=KIN)
    np.savez(tmp_path / "two.npz", ids=ids, a=OLD, b=KIN)
    np.savez(tmp_path / "none.npz", ids=ids[:0], vectors=KIN[:0])
    np.savez(tmp_path / "zeros.npz", ids=ids[::-1], vectors=np.where(ids[::-1, None] == "i9", 0.0, KIN[::-1]))
    np.savez(tmp_path / "twice.npz", ids=np.r_[ids[:-1], ids[:1]], vectors=KIN)
    np.savez(tmp_path / "few.npz", ids=ids[:1], vectors=KIN[:1])
    return tmp_path


def test_command__joins_on_ids_and_says_what_to_do(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = "--sizes", "10", "--draws", "1", "--format", "json"
    assert upgrade(str(files / "plain.npy"), str(files / "new.npz"), "--old-ids", str(files / "ids.npy"), *quick) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["n_common"] == 240
    assert facts["notes"] == [f"20 of 260 vectors of {files / 'plain.npy'} have no partner"]
    assert facts["verdict"]["decision"] in {"carry over", "carry over and re-embed some", "re-embed"}
    assert {row["label"] for row in facts["groups"]} == {"0", "1", "2"}


def test_command__saves_maps_that_carry(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = "--save", str(files / "maps"), "--sizes", "10", "--draws", "1"
    assert upgrade(str(files / "old.npz"), str(files / "new.npz"), *saved) == 0
    assert "carry over" in capsys.readouterr().out
    adapter, known = read_saved_map(files / "maps" / "stored.safetensors")
    carried = unit_rows(adapter.carry(unit_rows(OLD)))
    assert (carried * unit_rows(KIN)).sum(axis=1).min() > 0.95
    assert known is not None
    facts = json.loads((files / "maps" / "queries.json").read_text())
    assert (facts["carries"], facts["source_features"], facts["n_pairs"]) == ("queries", D, 240)
    assert upgrade(str(files / "old.npz"), str(files / "new.npz"), *saved) == 2
    assert "got a file that exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("old.npz", "other.npz"), "got no id that"),
        (("plain.npy", "new.npz"), "got vectors without ids, expected one for each"),
        (("old.npz", "broken.npz"), "the first is row 7 (id 'i7')"),
        (("old.npz", "two.npz"), "got the arrays a, b, expected one. Name it: two.npz#a"),
        (("old.npz", "nothing.npz"), "no such file"),
        (("old.npz", "none.npz"), "none.npz: got no vector, expected some"),
        (("old.npz", "zeros.npz"), "zeros.npz: got 1 vectors of zeros, the first of id 'i9'"),
        (("old.npz", "twice.npz"), "got 1 ids more than once among 260, first 'i0'"),
        (("old.npz", "few.npz", "--save", "new/folder"), "got 1 common inputs, expected at least 40"),
        (("old.npz", "new.npz", "--save", "old.npz"), "old.npz: got a file or a link that leads nowhere"),
        (("old.npz", "new.npz", "--save", "/proc/maps"), "/proc/maps: cannot be written to"),
        (("old.npz", "new.npz", "--sizes", "1,x"), "got --sizes 1,x"),
        (("old.npz", "new.npz", "--draws", "0"), "out of range"),
    ],
)
def test_command__that_cannot_judge_says_why(
    files: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    assert upgrade(*arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(files.rglob("*")) == before


def test_clusters__stand_for_labels_where_there_are_none() -> None:
    names = clusters_by_name(np.repeat(np.eye(3), 150, axis=0) + 0.01 * np.arange(450)[:, None] % 0.05, np.arange(450))
    assert len(set(names)) == 3
    assert all(len(set(names[start : start + 150])) == 1 for start in (0, 150, 300))
    assert all(str(name).startswith("near ") for name in names)
    assert len(set(clusters_by_name(OLD[:50], np.arange(50)))) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(set(clusters_by_name(np.ones((40, 3)), np.arange(40)))) == 1


def test_corrected__maps_take_from_the_pairs_what_their_start_lacks() -> None:
    """Few pairs leave a rotation nearly as it is; many bend it until it fits."""
    bent = KIN * np.linspace(0.5, 2, D)
    few, many = (corrected(orthogonal(known_pairs(n, bent)), known_pairs(n, bent)) for n in (20, 200))
    wanted = unit_rows(bent)[200:]
    cosines = [(unit_rows(one.carry(unit_rows(OLD)[200:])) * wanted).sum(axis=1).mean() for one in (few, many)]
    plain = (unit_rows(orthogonal(known_pairs(200, bent)).carry(unit_rows(OLD)[200:])) * wanted).sum(axis=1).mean()
    assert cosines[1] > max(cosines[0], plain + 0.01)
    exact = corrected(orthogonal(KnownPairs(OLD, OLD @ TURN, known_pairs(100).pairs)), known_pairs(100))
    assert np.isfinite(exact.matrix).all()


def test_unchanged__carries_a_fine_tuned_model_from_few_pairs_and_needs_equal_widths() -> None:
    tuned = OLD + 0.05 * np.random.default_rng(7).standard_normal((N, D))
    _, name = fit_and_choose(known_pairs(10, tuned), 10, 100)
    assert name.startswith("unchanged")
    assert unchanged(known_pairs(10, np.hstack([KIN, KIN]))) is None


def test_pairs__draw_the_functional_map_to_themselves() -> None:
    """Pairs outweigh rows that a map has matched, right or wrong, by 100 to 1."""
    known = known_pairs(30, OLD @ TURN)
    adapter = dict(FunctionalMaps(known, 200).fit())["functional map, pairs"]
    rows = unit_rows(OLD)
    assert (unit_rows(adapter.carry(rows)) * unit_rows(OLD @ TURN)).sum(axis=1).min() > 0.99


def test_intervals__are_over_draws_of_all_pairs_too() -> None:
    evidence = upgrade_evidence(OLD, KIN, CurveOptions(sizes=(), n_draws=3, n_rows=60))
    one = upgrade_evidence(OLD, KIN, CurveOptions(sizes=(), n_draws=1, n_rows=60))
    assert evidence.sizes == one.sizes
    assert len(evidence.chosen[STORED, evidence.sizes[0]]) == 3
    reaches = [side.cell(STORED, side.sizes[0], "ridge").recall_reach for side in (evidence, one)]  # type: ignore[union-attr]
    assert reaches[0] != reaches[1]


def test_maps__that_find_the_disk_full_are_not_saved_in_part(
    tmp_path: Path, of_kin: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def full_at_the_fourth(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_bytes(content)

    monkeypatch.setattr("lfm_tasks.stores.outputs.atomic_write", full_at_the_fourth)
    folder = tmp_path / "new" / "maps"
    with pytest.raises(OSError, match="No space left"), folder_for_maps(folder):
        save_upgrade(folder, OLD[:60], KIN[:60], of_kin, judge(of_kin))
    assert len(written) == 4
    assert list(tmp_path.iterdir()) == []
