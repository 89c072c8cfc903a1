"""Lists the layers of one model: their names, the shape of a point in each, and which ones the catalog chooses."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lfm_tasks.catalog import Catalog, expand_layers
from lfm_tasks.catalog.problems import did_you_mean
from lfm_tasks.reasons import ReasonError
from lfm_tasks.sources.datasets import read_dataset
from lfm_tasks.sources.files.source import FileSource
from lfm_tasks.sources.networks.recording import RecordedSource
from lfm_tasks.sources.opening import open_source


@dataclass(frozen=True)
class ListedLayer:
    """A layer, the shape of one point in it (None: only a run can tell), and why it cannot be used, if so."""

    name: str
    shape: tuple[int | None, ...]
    chosen: bool
    problem: str = ""


def list_layers(catalog: Catalog, model_name: str) -> tuple[ListedLayer, ...]:
    """Return all layers of a model, in its order; a network is run on a few rows if nothing else tells.

    Raises
    ------
    ReasonError
        ``missing_source`` for a model that the catalog does not have; ``unknown_layer`` if its ``layers`` choose
        nothing; and as opening it does.
    """
    if model_name not in catalog.models:
        hint = did_you_mean(model_name, catalog.models)
        raise ReasonError("missing_source", f"found no model {model_name[:100]!r} in the catalog{hint}")
    model = catalog.models[model_name]
    source = open_source(model_name, model, catalog, read_dataset(model.dataset, catalog))
    chosen = set(expand_layers(model.layers, source.layer_names()))
    shapes = source.layer_shapes() if isinstance(source, RecordedSource) else {}
    listed = []
    for name in source.layer_names():
        shape: tuple[int | None, ...] = shapes.get(name, ())
        try:
            # What a file holds is told by its header, already pooled.
            shape = source.shape(name)[1:] if isinstance(source, FileSource) else shape
            source.identity(name)
        except ReasonError as error:
            listed.append(ListedLayer(name, shape, name in chosen, str(error)))
        else:
            listed.append(ListedLayer(name, shape, name in chosen))
    return tuple(listed)


def as_lines(layers: Sequence[ListedLayer]) -> str:
    """Return a line for each layer: ``*`` if it is chosen, its name, the shape of a point or why there is none."""
    width = max(len(layer.name) for layer in layers)
    return "\n".join(
        f"{'*' if layer.chosen else ' '} {layer.name:<{width}}  {layer.problem or _text(layer.shape)}"
        for layer in layers
    )


def as_json(layers: Sequence[ListedLayer]) -> str:
    """Return the same as a JSON list of objects."""
    return json.dumps([asdict(layer) for layer in layers], indent=1, ensure_ascii=False)


def _text(shape: tuple[int | None, ...]) -> str:
    return " × ".join("?" if length is None else str(length) for length in shape)
