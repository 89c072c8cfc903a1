"""The settings of a run: small frozen values, checked once, where the catalog is read."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator


class Settings(BaseModel):
    """A frozen value that refuses unknown keys and never converts one type into another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``names``; ValueError if one stands there twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"found {', '.join(repeated)} more than once, needs each once: remove the repetition")
    return names


class GraphConfig(Settings):
    """How the neighbours of a point are found and weighted."""

    metric: Literal["angular", "euclidean"] = "angular"
    kernel: Literal["binary", "gaussian", "inverse", "distance"] = "binary"
    n_neighbors: int = Field(default=50, ge=1)
    method: Literal["auto", "exact", "projection", "pynndescent"] = "auto"


class MapsConfig(Settings):
    """From which knowledge the functional maps are fitted; ``full``: every point is known in both spaces."""

    regime: Literal["full"] = "full"


class NullConfig(Settings):
    """How the scores of unrelated spaces are sampled."""

    n_permutations: int = Field(default=100, ge=0)
    seed: int = Field(default=0, ge=0)


class IntervalsConfig(Settings):
    """Intervals by leaving out one of ``n_groups`` parts of the points at a time; 0: none, and no halves."""

    n_groups: int = Field(default=20, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _not_one(self) -> "IntervalsConfig":
        if 0 < self.n_groups < 5:
            raise ValueError(
                f"found n_groups {self.n_groups}, needs at least 5 to tell an error, or 0 for no intervals"
            )
        return self


class AtlasConfig(Settings):
    """What is computed, and where it is written; paths are relative to the catalog."""

    path: str = Field(default="atlas", min_length=1)
    store: str = Field(default=".lfm-atlas", min_length=1)
    graph: GraphConfig = GraphConfig()
    n_eigenpairs: int = Field(default=50, ge=2)
    maps: MapsConfig = MapsConfig()
    # strict=False lets YAML's lists become tuples; the names themselves stay strict.
    measures: Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(all_different)] = (
        "lfm",
        "overlap",
    )
    null: NullConfig = NullConfig()
    intervals: IntervalsConfig = IntervalsConfig()
    min_overlap: float = Field(default=0.5, gt=0, le=1, description="share of the smaller space's ids, in (0, 1]")
    max_points: int | None = Field(default=None, ge=2, description="a cap on points, drawn with seed")
    seed: int = Field(default=0, ge=0)


class ClusterConfig(Settings):
    """The local Dask cluster; nothing here changes a result."""

    n_workers: int | None = Field(default=None, ge=1)
    memory_limit: str | None = Field(default=None, pattern=r"^(auto|\d+(\.\d+)? ?[KMGT]?i?B)$")
