"""Opens the checkpoints that a catalog names, on what their dataset holds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

from lfm_tasks.catalog.cluster import LocalCluster
from lfm_tasks.catalog.models import ModelOnDataset
from lfm_tasks.catalog.names import fill_pattern
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.devices import check_device
from lfm_tasks.sources.checkpoints.folder import Checkpoint, inspect_checkpoint
from lfm_tasks.sources.checkpoints.models import CheckpointSource
from lfm_tasks.sources.checkpoints.tokens import TokenSource, token_points
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.raw_inputs import RawInputs, TokenPoints


def open_checkpoint(
    model_name: str,
    model: ModelOnDataset,
    catalog: Catalog,
    inputs: Any,
    ids: Shaped[np.ndarray, " points"],
    memory: DigestMemory,
) -> CheckpointSource:
    """Return the source of a model's checkpoint; ``inputs`` and ``ids`` are those of its dataset.

    Raises
    ------
    DataError
        ``bad_inputs`` if the dataset holds something else than the model reads; ``unsupported_model`` if the run works
        on this machine, which lacks the device; and as `inspect_checkpoint` does.
    """
    checkpoint = find_checkpoint(model_name, model, catalog)
    settings = _settings(model)
    if isinstance(catalog.cluster, LocalCluster):
        check_device(settings.device, f"model {model_name}")
    if isinstance(inputs, TokenPoints):
        return TokenSource(model_name, settings, checkpoint, inputs, memory)
    if not isinstance(inputs, RawInputs):
        problem = f"got numbers in the dataset {model.dataset}" if inputs is not None else "got no raw inputs"
        advice = f"Give it a dataset of {checkpoint.reads}, such as {{{checkpoint.reads}: {{path: ...}}}}"
        raise DataError("bad_inputs", f"model {model_name}: {problem}, expected {checkpoint.reads}. {advice}")
    if inputs.kind != checkpoint.reads:
        problem = f"reads {checkpoint.reads}, and the dataset {model.dataset} holds {inputs.kind}"
        raise DataError("bad_inputs", f"model {model_name}: {problem}. Give it a dataset of {checkpoint.reads}")
    return CheckpointSource(model_name, settings, checkpoint, inputs, ids, memory)


def find_checkpoint(model_name: str, model: ModelOnDataset, catalog: Catalog) -> Checkpoint:
    """Return the facts about the folder of a model's checkpoint; DataError as `inspect_checkpoint` raises it."""
    settings = _settings(model)
    written = {"path": settings.path, "base": settings.base, "tokenizer": settings.tokenizer}
    names = {
        key: fill_pattern(path, model=model_name, dataset=settings.dataset)
        for key, path in written.items()
        if path is not None
    }
    folders = {key: catalog.root / name for key, name in names.items()}
    return inspect_checkpoint(
        folders["path"],
        name=names["path"],
        root=catalog.root,
        loader=model.checkpoint[0] if model.checkpoint else None,
        tower=settings.tower,
        base=folders.get("base"),
        tokenizer=folders.get("tokenizer"),
    )


def dataset_tokens(
    dataset: str,
    models: Mapping[str, ModelOnDataset],
    catalog: Catalog,
    texts: RawInputs,
    ids: Shaped[np.ndarray, " texts"],
    memory: DigestMemory,
) -> TokenPoints | None:
    """Return the tokens that the points of a dataset are, by the first of its models that tells; None: they are texts.

    ``models``: those that are on the dataset.

    Raises
    ------
    DataError
        ``bad_inputs`` if some models of the dataset ask for tokens and others are run on texts.
    """
    run = {name: model for name, model in models.items() if model.activations is None}
    by_token = [name for name, model in run.items() if model.checkpoint and model.checkpoint[1].points == "tokens"]
    if not by_token:
        return None
    if by_text := [name for name in run if name not in by_token]:
        problem = f"got points: tokens for {by_token[0]} and texts for {by_text[0]}, expected one kind of points"
        raise DataError("bad_inputs", f"dataset {dataset}: {problem}. Declare the dataset twice, by two names.")
    errors = []
    for name in by_token:
        try:
            checkpoint = find_checkpoint(name, run[name], catalog)
            return token_points(name, _settings(run[name]), checkpoint, texts, ids, memory)
        except DataError as error:
            errors.append(error)
    raise errors[0]


def _settings(model: ModelOnDataset) -> Any:
    if model.checkpoint is None:
        raise TypeError("a model without a checkpoint has none to open")
    return model.checkpoint[1]
