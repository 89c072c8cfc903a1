"""Pooling of hidden states where they lie, on the CPU or a GPU: `sources.files.pooling` for tensors."""

from collections.abc import Callable
from typing import Any

from lfm_tasks.errors import DataError


def pool_states(state: Any, pool: str, *, valid: Any = None, n_prefix: int = 0) -> Any:
    """Return a hidden state as a tensor (batch, features).

    Parameters
    ----------
    state
        (batch, features), which stays as it is; (batch, tokens, features) or (batch, channels, height, width).
    pool
        ``mean`` and ``max`` run over tokens or pixels, ``cls`` and ``last`` take the first and the last token,
        ``cls+mean`` both side by side, ``flatten`` keeps everything. Half precision becomes single before a sum.
    valid
        (batch, tokens), false where a text was filled up; None: nothing was.
    n_prefix
        How many tokens at the start ``mean`` and ``max`` leave out.

    Raises
    ------
    DataError
        ``wrong_shape`` if the pooling does not fit the shape.
    """
    if state.ndim == 2:
        return state
    if pool == "flatten":
        return state.flatten(1)
    if state.ndim == 4 and pool in ("mean", "max"):
        state, valid, n_prefix = state.flatten(2).transpose(1, 2), None, 0
    if state.ndim != 3 or pool not in _POOL:
        fitting = {3: tuple(_POOL), 4: ("mean", "max")}.get(state.ndim, ())
        problem = f"got points of shape {tuple(state.shape[1:])} and pool: {pool}"
        raise DataError("wrong_shape", f"{problem}, expected pool: {' or '.join((*fitting, 'flatten'))}. Change pool.")
    return _POOL[pool](state, valid, n_prefix)


def _mean(state: Any, valid: Any, n_prefix: int) -> Any:
    import torch

    # Apple's GPUs have no double precision.
    wide = torch.float32 if state.device.type == "mps" else torch.float64
    patches = state[:, n_prefix:].to(wide)
    single = torch.float64 if state.dtype == torch.float64 else torch.float32
    if valid is None:
        return patches.mean(dim=1).to(single)
    counted = valid[:, n_prefix:]
    # Not a product with the mask: what stands at padded places may be NaN.
    total = patches.masked_fill_(~counted[:, :, None], 0).sum(dim=1)
    return (total / counted.sum(dim=1)[:, None]).to(single)


def _max(state: Any, valid: Any, n_prefix: int) -> Any:
    import torch

    patches = state[:, n_prefix:]
    if valid is not None:
        patches = torch.where(valid[:, n_prefix:, None], patches, float("-inf"))
    return patches.amax(dim=1)


def _first(state: Any, valid: Any, n_prefix: int) -> Any:
    if valid is None:
        return state[:, 0]
    return state[_rows(state), valid.int().argmax(dim=1)]


def _last(state: Any, valid: Any, n_prefix: int) -> Any:
    if valid is None:
        return state[:, -1]
    return state[_rows(state), valid.shape[1] - 1 - valid.flip(1).int().argmax(dim=1)]


def _first_and_mean(state: Any, valid: Any, n_prefix: int) -> Any:
    import torch

    mean = _mean(state, valid, n_prefix)
    return torch.cat([_first(state, valid, n_prefix).to(mean.dtype), mean], dim=1)


def _rows(state: Any) -> Any:
    import torch

    return torch.arange(len(state), device=state.device)


_POOL: dict[str, Callable[[Any, Any, int], Any]] = {
    "mean": _mean,
    "max": _max,
    "cls": _first,
    "last": _last,
    "cls+mean": _first_and_mean,
}
