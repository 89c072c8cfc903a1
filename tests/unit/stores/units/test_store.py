"""A unit is there whole or not at all, and is never served once a byte of it has changed; keys say what it holds."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm_tasks.errors import CorruptUnitError
from lfm_tasks.stores.units import store as units
from lfm_tasks.stores.units.store import RowsDigest, UnitStore, array_digest, digest, ids_digest

KEY = "ab" * 32


@pytest.fixture
def store(tmp_path: Path) -> UnitStore:
    return UnitStore(tmp_path / "store")


def commit(store: UnitStore, key: str = KEY, *, n_points: int = 5000, seed: int = 0) -> np.ndarray:
    """Commit a unit of activations in three chunks; return what was stored."""
    rows = np.random.default_rng(seed).standard_normal((n_points, 3)).astype(np.float32)
    with store.commit("activations", key) as unit:
        unit.arrays.write("activations", rows)
        unit.arrays.write("ids", np.array([f"p{number}" for number in range(n_points)]))
        unit.facts["n_points"] = n_points
    return rows


def unit_folder(store: UnitStore, key: str = KEY) -> Path:
    return store.root / "units" / "activations" / key


def test_unit__comes_back_as_it_was_committed(store: UnitStore) -> None:
    rows = commit(store)

    with store.open("activations", KEY) as unit:
        back, ids = unit.read("activations"), unit.read("ids")
        batches = list(unit.batches("activations"))

    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, rows)
    assert ids[[0, -1]].tolist() == ["p0", "p4999"]
    assert [len(batch) for batch in batches] == [2048, 2048, 904]
    np.testing.assert_array_equal(np.concatenate(batches), rows)
    assert store.receipt("activations", KEY).facts == {"n_points": 5000}


def test_unit__of_the_same_content_has_the_same_manifest(store: UnitStore) -> None:
    commit(store)
    commit(store, "cd" * 32)

    first, second = (store.receipt("activations", key).manifest for key in (KEY, "cd" * 32))

    assert first == second


def test_store__is_empty_before_the_first_commit(store: UnitStore) -> None:
    assert not store.has("activations", KEY)
    assert store.find("activations", KEY) is None
    assert store.receipts("activations") == []


def test_commit__that_fails_leaves_nothing(store: UnitStore) -> None:
    def fail() -> None:
        with store.commit("activations", KEY) as unit:
            unit.arrays.write("activations", np.ones((4, 2), np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert not store.has("activations", KEY)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_commit__twice_keeps_the_first(store: UnitStore) -> None:
    first = commit(store, seed=0)
    commit(store, seed=1)

    with store.open("activations", KEY) as unit:
        np.testing.assert_array_equal(unit.read("activations"), first)


def test_folder_without_receipt__is_not_a_unit_and_makes_room(store: UnitStore) -> None:
    commit(store, seed=0)
    (store.root / "receipts" / "activations" / f"{KEY}.json").unlink()
    assert not store.has("activations", KEY)

    rows = commit(store, seed=1)

    with store.open("activations", KEY) as unit:
        np.testing.assert_array_equal(unit.read("activations"), rows)


def test_sweep__removes_what_killed_runs_left(store: UnitStore) -> None:
    commit(store)
    (store.root / "staging" / f"activations-{KEY[:12]}-{RANDOM}").mkdir(parents=True)
    (store.root / "staging" / f"swept-{RANDOM}").mkdir()
    (store.root / "runs").mkdir()
    names = ("", "runs", "receipts/activations")
    partials = [store.root / place / f".some.json.{RANDOM}.partial" for place in names]
    for partial in partials:
        partial.write_text("{")

    store.sweep()

    assert not (store.root / "staging").exists()
    assert not any(partial.exists() for partial in partials)
    store.check("activations", KEY)


RANDOM = "0123456789abcdef" * 2
# Named like ours in part, or somewhere else.
OF_SOMEBODY = (
    "staging/thesis.tex", f"staging/{RANDOM}/thesis.tex", "staging/activations-x/thesis.tex", f"staging/file-{RANDOM}",
    "partial/activations-thesis/thesis.tex", "partial/activations-thesis.lock", ".notes.partial", "runs/.notes.partial",
    f"prefect/.x.{RANDOM}.partial", f"thesis/.x.{RANDOM}.partial",
)  # fmt: skip


def test_sweep__leaves_what_is_not_named_like_a_leftover(store: UnitStore) -> None:
    for name in OF_SOMEBODY:
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        (store.root / name).write_text("mine")

    store.sweep()
    store.remove_partial("activations")

    assert [name for name in OF_SOMEBODY if not (store.root / name).is_file()] == []


@pytest.mark.parametrize(
    "name", ["staging", f"staging/activations-{RANDOM}", "runs", "receipts/activations", "partial"]
)
def test_sweep__follows_no_link(name: str, store: UnitStore, tmp_path: Path) -> None:
    names = (f"activations-{RANDOM}/thesis.tex", f".x.{RANDOM}.partial", "thesis.tex", f"activations-{'0' * 64}/unit/x")
    for below in names:
        (tmp_path / "theirs" / below).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "theirs" / below).write_text("mine")
    (store.root / name).parent.mkdir(parents=True, exist_ok=True)
    (store.root / name).symlink_to(tmp_path / "theirs")

    store.sweep()
    store.remove_partial("activations")

    assert [below for below in names if not (tmp_path / "theirs" / below).is_file()] == []
    assert (store.root / name).is_symlink()


def chunks(unit: Path) -> list[Path]:
    return sorted(path for path in (unit / "activations").rglob("*") if path.is_file() and path.name != "zarr.json")


def flip_bit(unit: Path) -> None:
    content = bytearray(chunks(unit)[1].read_bytes())
    content[100] ^= 1
    chunks(unit)[1].write_bytes(content)


def swap_chunks(unit: Path) -> None:
    first, second = chunks(unit)[:2]
    first.rename(unit / "aside")
    second.rename(first)
    (unit / "aside").rename(second)


def truncate(unit: Path) -> None:
    os.truncate(chunks(unit)[0], 10)


def other_fill_value(unit: Path) -> None:
    path = unit / "activations" / "zarr.json"
    path.write_text(path.read_text().replace('"NaN"', '"Infinity"'))


def other_manifest(unit: Path) -> None:
    path = unit / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest))


def link_chunk(unit: Path) -> None:
    chunk = chunks(unit)[0]
    chunk.rename(unit.parent / "elsewhere")
    chunk.symlink_to(unit.parent / "elsewhere")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip_bit, r"activations/c/1/0 is damaged"),
    "swapped chunks": (swap_chunks, r"activations/c/0/0 is damaged"),
    "truncated chunk": (truncate, r"activations/c/0/0 is damaged"),
    "deleted chunk": (lambda unit: chunks(unit)[2].unlink(), r"activations/c/2/0 is missing"),
    "added file": (lambda unit: (unit / "activations" / "c" / "9").write_bytes(b""), r"c/9 is not expected"),
    "metadata": (other_fill_value, r"activations/zarr.json is damaged"),
    "manifest": (other_manifest, r"manifest.json is not the one committed"),
    "no manifest": (lambda unit: (unit / "manifest.json").unlink(), r"manifest.json cannot be read"),
    "link": (link_chunk, r"activations/c/0/0 is damaged"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damaged_unit__is_refused_put_aside_and_made_again(case: str, store: UnitStore) -> None:
    damage, message = DAMAGES[case]
    commit(store)
    damage(unit_folder(store))

    with pytest.raises(CorruptUnitError, match=message), store.open("activations", KEY):
        pass

    assert not store.has("activations", KEY)
    [aside] = (store.root / "quarantine").iterdir()
    assert (aside / "unit").is_dir()
    assert (aside / "receipt.json").is_file()
    rows = commit(store, seed=1)
    with store.open("activations", KEY) as unit:
        np.testing.assert_array_equal(unit.read("activations"), rows)


def test_unit_under_the_key_of_another__is_refused(store: UnitStore) -> None:
    other = "cd" * 32
    commit(store, seed=0)
    commit(store, other, seed=1)
    shutil.rmtree(unit_folder(store))
    shutil.copytree(unit_folder(store, other), unit_folder(store))

    with pytest.raises(CorruptUnitError, match=r"manifest\.json is not the one committed"):
        store.check("activations", KEY)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"body": {}, "sha256": ""}', "\x00"])
def test_damaged_receipt__is_not_found_and_put_aside(content: str, store: UnitStore) -> None:
    commit(store)
    (store.root / "receipts" / "activations" / f"{KEY}.json").write_text(content)

    with pytest.raises(CorruptUnitError, match=r"receipt activations/abab.* (cannot be read|is damaged)"):
        store.receipt("activations", KEY)
    assert store.find("activations", KEY) is None
    assert len(list((store.root / "quarantine").iterdir())) == 1


def test_receipt__with_other_facts_is_refused(store: UnitStore) -> None:
    commit(store)
    path = store.root / "receipts" / "activations" / f"{KEY}.json"
    path.write_text(path.read_text().replace("5000", "5001"))

    with pytest.raises(CorruptUnitError, match="its checksum does not fit"):
        store.receipt("activations", KEY)


def rows_digest(rows: np.ndarray, cuts: list[int]) -> str:
    hasher = RowsDigest(np.arange(len(rows)).astype(str))
    for part in np.split(rows, sorted(cuts)):
        hasher.update(part)
    return hasher.hexdigest()


def test_digest__is_the_one_of_the_canonical_json() -> None:
    # printf '{"convention":"13","k":[1,2.5],"metric":"angular"}' | sha256sum
    expected = "efddba081240ff361e19ff938fdb8423ff308722d9e0c1bd3ec48293e5c2a8eb"
    assert digest({"metric": "angular", "k": [1, 2.5]}) == expected


def test_digest__takes_no_notice_of_order_and_notice_of_values() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_digest__changes_with_the_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest({"a": 1})
    monkeypatch.setattr(units, "CONVENTION", "next")
    assert digest({"a": 1}) != before


def test_digest__refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest({"a": float("nan")})


def test_ids__that_concatenate_alike_have_other_digests() -> None:
    assert ids_digest(np.array(["ab", "c"])) != ids_digest(np.array(["a", "bc"]))
    assert ids_digest(np.array(["a", "b"])) != ids_digest(np.array(["b", "a"]))


def test_digest_of_an_array__is_of_type_shape_and_numbers() -> None:
    values = np.arange(6, dtype=np.int32)
    others = [values.astype(np.int64), values.reshape(2, 3), values.reshape(3, 2), values[::-1], values.astype(float)]
    assert len({array_digest(one) for one in [values, *others]}) == 6
    assert array_digest(values.astype(">i4")) == array_digest(values) == array_digest(np.repeat(values, 2)[::2])


@given(st.lists(st.integers(0, 40), max_size=4))
def test_rows__have_one_digest_for_any_batches(cuts: list[int]) -> None:
    rows = np.arange(80, dtype=np.float32).reshape(40, 2)
    assert rows_digest(rows, cuts) == rows_digest(rows, [])


def test_rows__have_one_digest_for_any_layout_in_memory() -> None:
    rows = np.random.default_rng(0).standard_normal((40, 6))
    assert rows_digest(np.asfortranarray(rows), []) == rows_digest(rows, [])
    assert rows_digest(rows.astype(">f8"), []) == rows_digest(rows, [])


def test_rows__of_other_values_types_or_shapes_have_other_digests() -> None:
    rows = np.zeros((40, 6), np.float32)
    other_value = rows.copy()
    other_value[-1, -1] = np.nextafter(np.float32(0), np.float32(1))
    seen = {rows_digest(array, []) for array in (rows, other_value, rows.view(np.int32), rows.reshape(40, 2, 3)[:, 0])}
    assert len(seen) == 4


def test_rows__that_change_type_on_the_way_are_refused() -> None:
    hasher = RowsDigest(np.array(["a", "b"]))
    hasher.update(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match="batches differ: <f4:3 first, <f8:3 now"):
        hasher.update(np.zeros((1, 3)))
