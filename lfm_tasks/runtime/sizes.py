"""sizes.py."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpaceSize:
    """Points, features (0: only a run can tell) and bytes of a number; of an id on average; of what else it takes.

    ``held_bytes``: of its file, what must be in memory at once. ``weight_bytes``: of the network that is run for it.
    """

    name: str
    n_points: int
    n_features: int
    itemsize: int = 4
    id_bytes: int = 8
    held_bytes: int = 0
    weight_bytes: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes of its values as they are stored."""
        return self.n_points * self.n_features * self.itemsize
