"""What the classes of a catalog say of its keys: their names, and which may take a value of the environment.

A value of the environment may be a secret. It is refused everywhere but in the keys that are marked with
`FROM_ENVIRONMENT`: those of a new section are refused until somebody marks them.
"""

import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from lfm_tasks.catalog.models import Model
from lfm_tasks.catalog.names import Problem
from lfm_tasks.catalog.sections import CatalogText
from lfm_tasks.catalog.yaml_tree import Entries, Items, Place
from lfm_tasks.config import FROM_ENVIRONMENT


def keys_of(kind: Any) -> list[str]:
    """Return the keys that a type allows."""
    return [key for model in _models(kind) for key in model.model_fields]


def kinds_of(kind: Any, key: str) -> list[Any]:
    """Return the types that a type allows at one of its keys: several where it is a union."""
    fields = [model.model_fields[key] for model in _models(kind) if key in model.model_fields]
    # Pydantic takes the outermost annotation off a field.
    kinds: list[Any] = [
        Annotated[field.annotation, FROM_ENVIRONMENT] if FROM_ENVIRONMENT in field.metadata else field.annotation
        for field in fields
    ]
    return [*kinds, get_args(kind)[1]] if get_origin(kind) is dict else kinds


def refused_variables(tree: Entries, file: str) -> list[Problem]:
    """Return a problem for each value of the environment whose key does not allow one; only the variable is named."""
    problems = []
    for place in _refused_places(tree, [CatalogText]):
        names = " and ".join(place.variables)
        problem = f"got the variable {names}, expected plain text: what stands here is published, stored or logged"
        advice = "Write it out; variables are for paths, storage and places of the cluster"
        problems.append(Problem(file, place.line, place.where, f"{problem}. {advice}"))
    return problems


def _allows_variables(kind: Any) -> bool:
    if hasattr(kind, "__metadata__"):
        return FROM_ENVIRONMENT in kind.__metadata__ or _allows_variables(kind.__origin__)
    is_union = get_origin(kind) in (Union, types.UnionType)
    return is_union and any(_allows_variables(part) for part in get_args(kind))


def _refused_places(value: object, kinds: Sequence[Any]) -> Iterator[Place]:
    if isinstance(value, Items):
        for item, place in zip(value, value.places, strict=True):
            if place.variables:
                yield place
            yield from _refused_places(item, [])
    elif isinstance(value, Entries):
        for key, item in value.items():
            place = value.places[key]
            # Of `defaults` that which a model takes over is checked there as well.
            is_defaults = CatalogText in kinds and key == "defaults"
            below = [Model] if is_defaults else [part for kind in kinds for part in kinds_of(kind, key)]
            if place.variables and not (below and all(_allows_variables(kind) for kind in below)):
                yield place
            yield from _refused_places(item, below)


def _models(kind: Any) -> list[type[BaseModel]]:
    """Return the pydantic classes that a type allows, also those inside unions and annotations."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    if get_origin(kind) in (Union, types.UnionType) or hasattr(kind, "__metadata__"):
        parts = [kind.__origin__] if hasattr(kind, "__metadata__") else get_args(kind)
        return [model for part in parts if part is not Literal for model in _models(part)]
    return []
