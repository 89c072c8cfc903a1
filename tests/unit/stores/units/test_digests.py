"""Keys: the same for the same ingredients, another for any other, on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lfm_tasks.stores.units import store
from lfm_tasks.stores.units.store import RowsDigest, digest, ids_digest


def rows_digest(rows: np.ndarray, cuts: list[int]) -> str:
    hasher = RowsDigest(np.arange(len(rows)).astype(str))
    for part in np.split(rows, sorted(cuts)):
        hasher.update(part)
    return hasher.hexdigest()


def test_digest__is_the_one_of_the_canonical_json() -> None:
    # printf '{"convention":"4","k":[1,2.5],"metric":"angular"}' | sha256sum
    expected = "9dd6a2585133d6909c61c3f88cf45772d1aaa8d379d11136b9d64b9b64442ae5"
    assert digest({"metric": "angular", "k": [1, 2.5]}) == expected


def test_digest__takes_no_notice_of_order_and_notice_of_values() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": 1}) != digest({"a": "1"})


def test_digest__changes_with_the_convention(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest({"a": 1})
    monkeypatch.setattr(store, "CONVENTION", "next")
    assert digest({"a": 1}) != before


def test_digest__refuses_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest({"a": float("nan")})


def test_ids__that_concatenate_alike_have_other_digests() -> None:
    assert ids_digest(np.array(["ab", "c"])) != ids_digest(np.array(["a", "bc"]))
    assert ids_digest(np.array(["a", "b"])) != ids_digest(np.array(["b", "a"]))


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
