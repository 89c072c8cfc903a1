"""A space: one layer of one model, seen through one dataset."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Space:
    """One (dataset, model, layer); ordered by these names."""

    dataset: str
    model: str
    layer: str

    @property
    def name(self) -> str:
        """``model/layer``: how people write it within one dataset."""
        return f"{self.model}/{self.layer}"
