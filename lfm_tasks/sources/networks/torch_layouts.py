"""Finds where the channels of a PyTorch network's maps are: convolutions give them first, linear layers last."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

ChannelPlace = Literal["first", "last", "unknown"]
# Classes of torch.nn, some of them the common ones of 1, 2 and 3 dimensions, that take and give channels first.
_FIRST = frozenset(
    {
        "_ConvNd", "_NormBase", "GroupNorm", "_MaxPoolNd", "_AvgPoolNd", "_AdaptiveAvgPoolNd", "_AdaptiveMaxPoolNd",
        "_LPPoolNd", "LocalResponseNorm", "Upsample", "PixelShuffle", "PixelUnshuffle", "ChannelShuffle",
    }
)  # fmt: skip


def channel_places(modules: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...] | str]) -> dict[str, ChannelPlace]:
    """Return where the channels are in each module that gives maps.

    A network none of whose maps have their channels last by the kind of a module has all of them first. Else modules
    that do not tell by their kind (blocks, activations) tell by the shape of a square map, and are unknown without.

    Parameters
    ----------
    modules
        The modules by name.
    shapes
        The shape of a point in each, or why there is none.
    """
    maps = {name: shape for name, shape in shapes.items() if not isinstance(shape, str) and len(shape) == 3}
    by_kind = {name: _by_kind(modules[name]) for name in maps}
    if "last" not in by_kind.values():
        return dict.fromkeys(maps, "first")
    return {name: _by_shape(maps[name]) if place == "unknown" else place for name, place in by_kind.items()}


def _by_kind(module: Any) -> ChannelPlace:
    kinds = {kind.__name__ for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn")}
    if kinds & _FIRST:
        return "first"
    # A class that inherits from LayerNorm may turn the map before and after, as torchvision's LayerNorm2d does.
    is_norm = type(module).__name__ == "LayerNorm" and len(getattr(module, "normalized_shape", ())) == 1
    return "last" if "Linear" in kinds or (is_norm and "LayerNorm" in kinds) else "unknown"


def _by_shape(shape: Sequence[int]) -> ChannelPlace:
    """Return where the channels of a square map are; unknown where several sides are as long as the channels."""
    first, second, third = shape
    if second == third != first:
        return "first"
    return "last" if first == second != third else "unknown"
