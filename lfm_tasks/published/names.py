"""The names of one dataset's models and spaces, and what to say of a name that is none of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfm_tasks.catalog.problems import describe, did_you_mean
from lfm_tasks.stores.atlas.schema import AtlasError


def one_of(name: str, known: Iterable[str], what: str) -> str:
    """Return ``name`` if it is known; `AtlasError` with the nearest known ones if it is not."""
    names = list(known)
    if name not in names:
        raise AtlasError(f"found {describe(name)}, needs a {what} of the atlas{did_you_mean(str(name), names)}")
    return name


@dataclass(frozen=True)
class Names:
    """The spaces of one dataset: name → model, by model and then by depth; and the spaces that failed."""

    dataset: str
    model_of: Mapping[str, str]
    failures: Sequence[Mapping[str, Any]]

    @property
    def models(self) -> list[str]:
        """Return the models, each once."""
        return list(dict.fromkeys(self.model_of.values()))

    def is_model(self, name: str) -> bool:
        """Return whether ``name`` is a model that has spaces."""
        return name in self.model_of.values()

    def space(self, name: str) -> str:
        """Return ``name`` if it is a space; else `AtlasError`."""
        if name in self.model_of:
            return name
        if self.is_model(name):
            layers = ", ".join(self.layers(name)[:12])
            raise AtlasError(f"found the model {name!r}, needs a space, which is one of its layers: {layers}")
        raise self._unknown(name, "a space")

    def layers(self, model: str) -> list[str]:
        """Return the spaces of a model, by depth."""
        return [space for space, own in self.model_of.items() if own == model]

    def spaces_of(self, name: str) -> str | list[str]:
        """Return a space as it is, and the spaces of a model; `AtlasError` if it is neither."""
        if name in self.model_of:
            return name
        if self.is_model(name):
            return self.layers(name)
        raise self._unknown(name, "a model or a space")

    def _unknown(self, name: str, needed: str) -> AtlasError:
        for failure in self.failures:
            failed = f"{failure['model']}/{failure['layer']}" if failure["layer"] else failure["model"]
            if name == failed or (not failure["layer"] and str(name).startswith(f"{failed}/")):
                return AtlasError(f"found {name!r}, which failed: {failure['message']} [{failure['reason']}]")
        known = [*self.models, *self.model_of]
        hint = did_you_mean(str(name), known)
        return AtlasError(f"found {describe(name)}, needs {needed} of the dataset {self.dataset}{hint}")
