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
    on_scheduler,
)
from lfm_tasks.catalog.patterns import expand_layers, fill
from lfm_tasks.catalog.problems import CatalogError, Problem
from lfm_tasks.catalog.reading import problems_at, read_catalog
from lfm_tasks.catalog.schema import catalog_schema
from lfm_tasks.catalog.trust import Trust

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
