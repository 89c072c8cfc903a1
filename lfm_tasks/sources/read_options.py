"""Options of the files of a model: their paths, and how values become rows."""

from dataclasses import dataclass

from lfm_tasks.catalog.datasets import ArrayFile, DatasetFile
from lfm_tasks.catalog.models import ActivationsSource
from lfm_tasks.catalog.names import fill_pattern
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.sources.layers import FilePattern, reading_of


@dataclass(frozen=True)
class ReadOptions:
    """How the values of a point become a row, as the catalog says: see `pool_rows`; ``dtype`` None keeps the type.

    ``not_finite``: ``drop`` leaves out rows with NaN or infinite values. ``repeats``: ``mean`` makes one row of all
    rows of an id. ``named``: paths and keys of the arrays that the catalog names as something else than a layer.
    Of several shapes that one counts which has as many dimensions as the array.
    """

    pool: str = "none"
    shape: str | tuple[str, ...] | None = None
    mask: FilePattern | None = None
    prefix_tokens: int = 0
    dtype: str | None = None
    not_finite: str = "refuse"
    repeats: str | None = None
    named: frozenset[tuple[str, str | None]] = frozenset()

    def shape_of(self, n_dims: int) -> str | None:
        """Return the shape that the catalog gives an array of so many dimensions."""
        if isinstance(self.shape, tuple):
            return next((shape for shape in self.shape if len(shape) == n_dims), None)
        return self.shape


def file_pattern(model_name: str, source: ActivationsSource, catalog: Catalog) -> FilePattern:
    """Return where a model's activations lie, its name and the dataset's filled in."""
    return array_pattern(source, catalog, model=model_name, dataset=source.dataset)


def array_pattern(file: ArrayFile, catalog: Catalog, **fields: str) -> FilePattern:
    """Return where an array of a catalog lies, with names filled in."""
    key = None if file.key is None else fill_pattern(file.key, **fields)
    return FilePattern(
        catalog.root, fill_pattern(file.path, **fields), key, file.storage, reading_of(file), catalog.link_homes
    )


def read_options(model_name: str, source: ActivationsSource, catalog: Catalog) -> ReadOptions:
    """Return how a model's activations are read."""
    fields = {"model": model_name, "dataset": source.dataset}
    mask = None if source.mask is None else array_pattern(source.mask, catalog, **fields)
    others = [file for file in (source.mask, source.ids) if file is not None]
    dataset = catalog.datasets[source.dataset]
    named = [(array_pattern(file, catalog, **fields)) for file in others]
    named += [
        array_pattern(file, catalog, dataset=source.dataset)
        for file in (dataset.ids, dataset.labels, dataset.groups, dataset.strata, dataset.inputs)
        if isinstance(file, DatasetFile)
    ]
    return ReadOptions(
        source.pool,
        source.shape,
        mask,
        source.prefix_tokens,
        source.dtype,
        source.not_finite,
        source.repeats,
        frozenset((str(file.locate()), file.key) for file in named),
    )
