"""Ground truth of networks that ``meta`` declares: accuracy, outputs, groups, origin.

::

    meta:
      accuracy: 0.91                  # in [0, 1], of networks that differ by their seed
      outputs: outputs/cnn_s0.npy     # probabilities (points, classes) of the same networks; beside the catalog
      groups: {label_noise: 0.25}     # networks with the same value were trained alike
      base_model: cnn_s0              # a network that this one was made of
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from lfm_tasks.errors import DataError
from lfm_tasks.experiments.source_zoo import SourceZoo
from lfm_tasks.stages.activations.stage import RecordedSpace
from lfm_tasks.statistics.model_pairs import families

Outputs = Float[np.ndarray, "points classes"]
# Groundings that are no groups of the catalog's own naming.
OF_SEEDS = ("accuracy", "outputs", "layer_order", "layer_matching")
LINEAGE = "lineage"
_FEWEST_LAYERS = 3


@dataclass(frozen=True)
class KnownNetwork:
    """A network of one dataset: its recorded layers, first layer first, and what is known of it.

    ``family``: a number that it shares with the networks that were made of it, or that it was made of.
    """

    name: str
    spaces: tuple[RecordedSpace, ...]
    groups: Mapping[str, str]
    family: int
    accuracy: float | None = None
    outputs: Outputs | None = None

    @property
    def facts(self) -> str:
        """The known facts, in words that two networks share if the same facts are known of both."""
        known = [name for name in ("accuracy", "outputs") if getattr(self, name) is not None]
        return f"{sorted(self.groups.items())} {known} {len(self.spaces)}"


@dataclass(frozen=True)
class KnownDataset:
    """The networks that are compared with each other, sorted by name; ``number``: of which half they are."""

    name: str
    networks: tuple[KnownNetwork, ...]
    number: int | None = None

    def __len__(self) -> int:
        """Return the number of networks."""
        return len(self.networks)

    @cached_property
    def has_one_depth(self) -> bool:
        """Whether all networks have equally many layers, so that layers of the same number can be compared."""
        return len({len(network.spaces) for network in self.networks}) == 1

    def with_grounding(self, grounding: str) -> list[int]:
        """Return the places of the networks that take part in a grounding; none if it says nothing about them."""
        places = list(range(len(self)))
        if grounding in ("accuracy", "outputs"):
            found = [place for place in places if getattr(self.networks[place], grounding) is not None]
            return found if len(found) >= 3 else []
        if grounding in OF_SEEDS:
            found = self._seeds()
            n_layers = min((len(self.networks[place].spaces) for place in found), default=0)
            is_alike = len({len(self.networks[place].spaces) for place in found}) == 1
            if grounding == "layer_order":
                return found if n_layers >= _FEWEST_LAYERS else []
            return found if n_layers >= 2 and is_alike and len(found) >= 2 else []
        labels = self._labels(grounding)
        sizes = Counter(label for label in labels if label is not None)
        if grounding == LINEAGE:
            sizes = Counter({label: size for label, size in sizes.items() if size > 1})
        if len(sizes) < 2 or max(sizes.values()) < 2:
            return []
        return [place for place, label in enumerate(labels) if label in sizes]

    def group_numbers(self, grounding: str) -> Int[np.ndarray, " members"]:
        """Return the group of each network that takes part, numbered."""
        labels = self._labels(grounding)
        members = [str(labels[place]) for place in self.with_grounding(grounding)]
        return np.unique(members, return_inverse=True)[1]

    def units(self) -> tuple[Int[np.ndarray, " networks"], list[str]]:
        """Return the unit of each network, which is drawn as a whole: its family; and what is known of each unit."""
        numbers = np.unique([network.family for network in self.networks], return_inverse=True)[1]
        facts: list[list[str]] = [[] for _ in range(int(numbers.max()) + 1)]
        for number, network in zip(numbers.tolist(), self.networks, strict=True):
            facts[number].append(network.facts)
        return numbers, [" ".join(sorted(set(known))) for known in facts]

    def halves(self) -> tuple["KnownDataset", "KnownDataset"]:
        """Return two datasets: units of which the same is known, by name, go into one and the other in turn."""
        numbers, facts = self.units()
        first_member = [int(np.flatnonzero(numbers == unit)[0]) for unit in range(len(facts))]
        order = sorted(range(len(facts)), key=lambda unit: (facts[unit], self.networks[first_member[unit]].name))
        is_second = np.zeros(len(facts), dtype=bool)
        is_second[order[1::2]] = True
        both = [
            [n for n, unit in zip(self.networks, numbers, strict=True) if is_second[unit] == side] for side in (0, 1)
        ]
        return replace(self, networks=tuple(both[0]), number=0), replace(self, networks=tuple(both[1]), number=1)

    def _seeds(self) -> list[int]:
        """Return the places of networks that differ by their seed: those with accuracy or outputs, if any has them."""
        known = [
            place
            for place, network in enumerate(self.networks)
            if network.accuracy is not None or network.outputs is not None
        ]
        sizes = Counter(network.family for network in self.networks)
        alone = [
            place
            for place, network in enumerate(self.networks)
            if sizes[network.family] == 1 and len(set(network.groups)) == 0
        ]
        return known or alone

    def _labels(self, grounding: str) -> list[str | None]:
        if grounding == LINEAGE:
            return [str(network.family) for network in self.networks]
        return [network.groups.get(grounding) for network in self.networks]


def known_datasets(source: SourceZoo) -> list[KnownDataset]:
    """Return the datasets with what the catalog knows of their networks.

    Raises
    ------
    DataError
        ``missing_source`` if nothing is declared, or a file of outputs is not there; ``wrong_shape``,
        ``wrong_dtype`` or ``not_finite`` for outputs, accuracies and groups that cannot be what they are called.
    """
    meta = {name: model.meta for name, model in source.catalog.models.items()}
    family_of = families(meta)
    by_dataset: dict[str, dict[str, list[RecordedSpace]]] = {}
    for one in sorted(source.spaces, key=lambda one: (one.depth, one.space.layer)):
        by_dataset.setdefault(one.space.dataset, {}).setdefault(one.space.model, []).append(one)
    datasets = []
    for name, models in by_dataset.items():
        networks = [
            _known(model, meta[model], tuple(models[model]), family_of[model], source.catalog.root)
            for model in sorted(models)
        ]
        _check_outputs(name, networks)
        datasets.append(KnownDataset(name, tuple(networks)))
    if not usable_groundings(datasets):
        raise DataError(
            "missing_source",
            f"got {len(meta)} models and too little known of them that a score could agree with, expected two groups "
            "of four models, or six models with an accuracy: one half of the models chooses a score, the other tells "
            "how good it is. Add meta: {groups: {label_noise: 0.5}}, {accuracy: 0.9}, {outputs: outputs.npy} or "
            "{base_model: name}",
        )
    return datasets


def groundings_of(parts: Iterable[KnownDataset]) -> list[str]:
    """Return the groundings that some of the datasets have: none if only groundings of layers apply."""
    parts = list(parts)
    named = sorted({name for part in parts for network in part.networks for name in network.groups})
    first = ["accuracy", "outputs", *named, LINEAGE]
    declared = [name for name in first if any(part.with_grounding(name) for part in parts)]
    # Order and matching of layers need no truth: alone they do not make a catalog one of networks that are known.
    of_layers = [name for name in OF_SEEDS[2:] if any(part.with_grounding(name) for part in parts)]
    return declared + of_layers if declared else []


def usable_groundings(datasets: Iterable[KnownDataset]) -> dict[str, list[KnownDataset]]:
    """Return the datasets by grounding whose halves both have it; groundings that no dataset has are left out."""
    found: dict[str, list[KnownDataset]] = {}
    for dataset in datasets:
        halves = [set(groundings_of([half])) for half in dataset.halves()]
        for name in groundings_of([dataset]):
            if all(name in half for half in halves):
                found.setdefault(name, []).append(dataset)
    return found


def _known(
    model: str, meta: Mapping[str, Any], spaces: tuple[RecordedSpace, ...], family: int, root: Path | None
) -> KnownNetwork:
    groups = meta.get("groups", {})
    if not isinstance(groups, dict) or any(
        isinstance(value, dict | list) or value is None for value in groups.values()
    ):
        found = f"model {model}: got groups: {str(groups)[:100]} in its meta"
        raise DataError("wrong_dtype", f"{found}, expected a value for each name: groups: {{label_noise: 0.5}}")
    if taken := sorted({*OF_SEEDS, LINEAGE} & groups.keys()):
        found = f"model {model}: got the group {taken[0]} in its meta, the name of another grounding"
        raise DataError("bad_name", f"{found}. Rename it")
    accuracy = meta.get("accuracy")
    is_number = isinstance(accuracy, int | float) and not isinstance(accuracy, bool)
    if accuracy is not None and not (is_number and 0 <= accuracy <= 1):
        found = f"model {model}: got accuracy: {str(accuracy)[:100]} in its meta"
        raise DataError("wrong_dtype", f"{found}, expected a number from 0 to 1")
    outputs = None if meta.get("outputs") is None else _read_outputs(model, meta["outputs"], root)
    named = {str(name): str(value) for name, value in groups.items()}
    return KnownNetwork(model, spaces, named, family, None if accuracy is None else float(accuracy), outputs)


def _read_outputs(model: str, path: object, root: Path | None) -> Outputs:
    """Return probabilities of classes from a file beside the catalog."""
    place = (root or Path()) / str(path)
    try:
        values = np.load(place, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        found = f"model {model}: got no readable array at outputs: {str(path)[:200]} ({type(error).__name__})"
        raise DataError("missing_source", f"{found}, expected a .npy file of (points, classes)") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind != "f":
        shape = getattr(values, "shape", "several arrays")
        found = f"model {model}: got {shape} in outputs: {str(path)[:200]}"
        raise DataError(
            "wrong_shape", f"{found}, expected floating-point numbers (points, classes), two classes or more"
        )
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all() or wide.min() < 0 or np.abs(wide.sum(axis=1) - 1).max() > 1e-2:
        found = f"model {model}: got rows that are no probabilities in outputs: {str(path)[:200]}"
        raise DataError("not_finite", f"{found}, expected numbers of at least 0 that sum to 1. Store the softmax")
    return wide


def _check_outputs(dataset: str, networks: list[KnownNetwork]) -> None:
    known = [network for network in networks if network.outputs is not None]
    for first, second in combinations(known, 2):
        shapes = [network.outputs.shape for network in (first, second) if network.outputs is not None]
        if shapes[0] != shapes[1]:
            found = f"dataset {dataset}: got outputs of {shapes[0]} for {first.name} and {shapes[1]} for {second.name}"
            raise DataError("wrong_shape", f"{found}, expected the same points and classes in all. Store them again")


def disagreement(outputs: list[Outputs]) -> Float[np.ndarray, "networks networks"]:
    """Return the share of points for which two networks predict different classes."""
    answers = np.stack([values.argmax(axis=1) for values in outputs])
    return np.asarray((answers[:, None] != answers).mean(axis=2))


def divergence(outputs: list[Outputs]) -> Float[np.ndarray, "networks networks"]:
    """Return the mean over points of the Jensen-Shannon divergence of two networks' probabilities, in bits."""
    found = np.zeros((len(outputs),) * 2)
    entropies = [_entropy(values) for values in outputs]
    for first, second in combinations(range(len(outputs)), 2):
        mixed = _entropy((outputs[first] + outputs[second]) / 2)
        value = float((mixed - (entropies[first] + entropies[second]) / 2).mean())
        found[first, second] = found[second, first] = value
    return found


def _entropy(probabilities: Outputs) -> Float[np.ndarray, " points"]:
    present = np.where(probabilities > 0, probabilities, 1.0)
    return np.asarray(-(probabilities * np.log2(present)).sum(axis=1))
