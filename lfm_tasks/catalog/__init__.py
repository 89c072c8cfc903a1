"""The catalog: which models, on which data, and how they are compared.

A section of ``data_catalog.yaml`` is a class of settings, a key is one of its fields: ``datasets.py``, ``models.py``
(models, discovery), ``checkpoints.py``, ``comparisons.py``, ``cluster.py``, `lfm_tasks.config` (atlas),
`lfm_tasks.checks` (checks of an audit), all together in ``sections.py``. To add a key, add the field with its default
and description, a test, and a line in ``docs/catalog.md``, whose test asks for every key. The reader, messages with
lines, the JSON schema and the printed catalog follow from the class.
"""

from lfm_tasks.catalog.checkpoints import CheckpointModel
from lfm_tasks.catalog.comparisons import Comparison, ModelFacts
from lfm_tasks.catalog.datasets import Dataset, DatasetFile, DatasetIds, ModelFile, ModelIds
from lfm_tasks.catalog.models import ActivationsSource, Model, ModelOnDataset, OnnxModel, TorchModel
from lfm_tasks.catalog.names import CatalogError, Problem, expand_layers, fill_pattern
from lfm_tasks.catalog.reading import catalog_schema, catalog_yaml, problems_at, read_catalog
from lfm_tasks.catalog.sections import Catalog, Trust, on_scheduler

__all__ = [
    "ActivationsSource",
    "Catalog",
    "CatalogError",
    "CheckpointModel",
    "Comparison",
    "Dataset",
    "DatasetFile",
    "DatasetIds",
    "Model",
    "ModelFacts",
    "ModelFile",
    "ModelIds",
    "ModelOnDataset",
    "OnnxModel",
    "Problem",
    "TorchModel",
    "Trust",
    "catalog_schema",
    "catalog_yaml",
    "expand_layers",
    "fill_pattern",
    "on_scheduler",
    "problems_at",
    "read_catalog",
]
