"""The torchvision behind this folder on the path, with the two operators declared that its import looks up."""

import importlib.machinery
import sys
from pathlib import Path

import torch

# An operator lives as long as the library that declares it.
_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

_others = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parents[1]]
_spec = importlib.machinery.PathFinder.find_spec(__name__, _others)
__path__ = list(_spec.submodule_search_locations)
__file__ = _spec.origin
exec(compile(Path(_spec.origin).read_bytes(), _spec.origin, "exec"))  # noqa: S102 - an installed package
