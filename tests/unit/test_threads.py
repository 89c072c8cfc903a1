"""One BLAS thread: inside of a block, and of the calls that people make from Python; after them as before."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from lfm_atlas import compare, fit_map, measure_functions, measures
from lfm_tasks.spectral.transfer import selection
from lfm_tasks.stages.bases import job
from lfm_tasks.threads import one_thread

ROWS = np.random.default_rng(0).standard_normal((80, 5))


def n_threads() -> int:
    return max(one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """Have two BLAS threads, whatever this machine and its settings are."""
    with threadpool_limits(2):
        if n_threads() < 2:
            pytest.skip("a BLAS of one thread")
        yield


def test_one_thread__is_there_while_the_block_runs_and_after_an_error_as_before() -> None:
    with one_thread():
        assert n_threads() == 1
    assert n_threads() == 2
    with pytest.raises(KeyError), one_thread():
        raise KeyError
    assert n_threads() == 2


@pytest.mark.parametrize(
    ("call", "home", "name"),
    [
        (lambda: fit_map(ROWS, ROWS[:, ::-1], np.arange(20)), selection, "fit_from_anchors"),
        (lambda: compare(ROWS, ROWS[:, ::-1], measures="overlap"), job, "compute_basis"),
    ],
)
def test_calls_from_python__compute_in_one_thread(
    monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any], home: Any, name: str
) -> None:
    seen: list[int] = []
    inner = getattr(home, name)

    def watched(*arguments: Any, **settings: Any) -> Any:
        seen.append(n_threads())
        return inner(*arguments, **settings)

    monkeypatch.setattr(home, name, watched)
    call()
    assert set(seen) == {1}
    assert n_threads() == 2


def test_a_measure__is_computed_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    cka = measures.cka_linear
    monkeypatch.setattr(measure_functions, "MEASURES", {"cka_linear": lambda x, y: float(n_threads())})
    assert cka(ROWS, ROWS) == 1.0
    assert n_threads() == 2
