"""A space: one layer of one model, seen through one dataset."""

from typing import NamedTuple


class Space(NamedTuple):
    """One (dataset, model, layer); ordered by these names."""

    dataset: str
    model: str
    layer: str

    @property
    def name(self) -> str:
        """``model/layer``: how people write it within one dataset."""
        return f"{self.model}/{self.layer}"
