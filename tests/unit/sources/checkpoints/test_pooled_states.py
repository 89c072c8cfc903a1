"""Pooling of tensors is the pooling of arrays."""

import numpy as np
import pytest

from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.pooled_states import pool_states
from lfm_tasks.sources.files.pooling import pool_rows
from lfm_tasks.sources.networks.torch_networks import as_array

torch = pytest.importorskip("torch", reason="needs the extra [hf]")

MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], dtype=bool)


def states(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("n_prefix", [0, 2])
@pytest.mark.parametrize("pool", ["mean", "max", "cls", "last", "cls+mean"])
def test_pool_states__of_tokens_equals_pool_rows(pool: str, n_prefix: int, dtype: str) -> None:
    tokens = states(3, 5, 4, dtype=dtype)
    tokens[~MASK] = np.nan  # what stands at padded places counts nowhere
    found = as_array(pool_states(torch.tensor(tokens), pool, valid=torch.tensor(MASK), n_prefix=n_prefix))
    counted = pool_rows(tokens, pool, mask=MASK, prefix_tokens=n_prefix)
    assert found.dtype == counted.dtype
    np.testing.assert_allclose(found, counted, rtol=1e-6 if dtype != "float64" else 1e-14)


@pytest.mark.parametrize("pool", ["mean", "max", "flatten", "cls", "last"])
def test_pool_states__without_padding_equals_pool_rows(pool: str) -> None:
    for shape in [(3, 4), (3, 5, 4), *([(3, 4, 2, 2)] if pool in ("mean", "max", "flatten") else [])]:
        values = states(*shape)
        expected = pool_rows(values, pool, shape="nchw" if len(shape) == 4 and pool != "flatten" else None)
        np.testing.assert_allclose(pool_states(torch.tensor(values), pool).numpy(), expected, rtol=1e-6)


def test_pool_states__leaves_out_a_prefix_only_where_there_is_no_padding() -> None:
    values = states(2, 5, 3)
    found = pool_states(torch.tensor(values), "mean", n_prefix=2).numpy()
    np.testing.assert_allclose(found, values[:, 2:].mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize(("shape", "pool"), [((2, 3, 4), "none"), ((2, 3, 4, 4), "last"), ((2, 3, 4, 4, 4), "mean")])
def test_pool_states__refuses_what_does_not_fit(shape: tuple[int, ...], pool: str) -> None:
    with pytest.raises(DataError, match=rf"points of shape .* and pool: {pool}, expected pool: .*flatten") as caught:
        pool_states(torch.zeros(shape), pool)
    assert caught.value.reason == "wrong_shape"
