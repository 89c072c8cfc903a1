"""The catalog: which models, on which data, and how they are compared; its form is checked here, names later."""

from lfm_tasks.catalog.comparisons import Comparison, Member
from lfm_tasks.catalog.model import (
    ActivationsSource,
    Catalog,
    Dataset,
    DatasetFile,
    Model,
    ModelFile,
    OnnxModel,
    TorchModel,
    Trust,
    on_scheduler,
)
from lfm_tasks.catalog.names import CatalogError, Problem, expand_layers, fill
from lfm_tasks.catalog.reading import problems_at, read_catalog
from lfm_tasks.catalog.writing import catalog_schema

__all__ = [
    "ActivationsSource",
    "Catalog",
    "CatalogError",
    "Comparison",
    "Dataset",
    "DatasetFile",
    "Member",
    "Model",
    "ModelFile",
    "OnnxModel",
    "Problem",
    "TorchModel",
    "Trust",
    "catalog_schema",
    "expand_layers",
    "fill",
    "on_scheduler",
    "problems_at",
    "read_catalog",
]
