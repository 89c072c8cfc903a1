"""The catalog: which models, on which data, and how they are compared.

A section of ``data_catalog.yaml`` is a class of settings, a key is one of its fields: ``datasets.py``, ``models.py``
(models, discovery), ``checkpoints.py``, ``comparisons.py``, ``cluster.py``, `lfm_tasks.config` (atlas),
`lfm_tasks.checks` (checks of an audit), all together in ``sections.py``. To add a key, add the field with its default
and description, a test, and a line in ``docs/catalog.md``, whose test asks for every key. The reader, messages with
lines, the JSON schema and the printed catalog follow from the class.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.catalog.checkpoints import CheckpointModel as CheckpointModel
    from lfm_tasks.catalog.comparisons import Comparison as Comparison
    from lfm_tasks.catalog.comparisons import ModelFacts as ModelFacts
    from lfm_tasks.catalog.datasets import Dataset as Dataset
    from lfm_tasks.catalog.datasets import DatasetFile as DatasetFile
    from lfm_tasks.catalog.datasets import DatasetIds as DatasetIds
    from lfm_tasks.catalog.datasets import ModelFile as ModelFile
    from lfm_tasks.catalog.datasets import ModelIds as ModelIds
    from lfm_tasks.catalog.models import ActivationsSource as ActivationsSource
    from lfm_tasks.catalog.models import Model as Model
    from lfm_tasks.catalog.models import ModelOnDataset as ModelOnDataset
    from lfm_tasks.catalog.models import OnnxModel as OnnxModel
    from lfm_tasks.catalog.models import TorchModel as TorchModel
    from lfm_tasks.catalog.names import CatalogError as CatalogError
    from lfm_tasks.catalog.names import Problem as Problem
    from lfm_tasks.catalog.names import expand_layers as expand_layers
    from lfm_tasks.catalog.names import fill_pattern as fill_pattern
    from lfm_tasks.catalog.reading import catalog_schema as catalog_schema
    from lfm_tasks.catalog.reading import catalog_yaml as catalog_yaml
    from lfm_tasks.catalog.reading import problems_at as problems_at
    from lfm_tasks.catalog.reading import read_catalog as read_catalog
    from lfm_tasks.catalog.sections import Catalog as Catalog
    from lfm_tasks.catalog.sections import Trust as Trust
    from lfm_tasks.catalog.sections import on_scheduler as on_scheduler

_HOMES = {
    "checkpoints": ("CheckpointModel",),
    "comparisons": (
        "Comparison",
        "ModelFacts",
    ),
    "datasets": (
        "Dataset",
        "DatasetFile",
        "DatasetIds",
        "ModelFile",
        "ModelIds",
    ),
    "models": (
        "ActivationsSource",
        "Model",
        "ModelOnDataset",
        "OnnxModel",
        "TorchModel",
    ),
    "names": (
        "CatalogError",
        "Problem",
        "expand_layers",
        "fill_pattern",
    ),
    "reading": (
        "catalog_schema",
        "catalog_yaml",
        "problems_at",
        "read_catalog",
    ),
    "sections": (
        "Catalog",
        "Trust",
        "on_scheduler",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    # The settings take half a second to make: a module that needs only the rules of names does not wait for them.
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
