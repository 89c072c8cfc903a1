"""The settings of a run: small frozen values, checked once, where the catalog is read."""

import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidatorFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_wrap_validator_function

from lfm_tasks.spectral.bases.automatic import BasisNumbers, basis_numbers, n_landmarks_of
from lfm_tasks.spectral.bases.graph_kernels import KERNELS
from lfm_tasks.statistics.resampling import N_SPLITS
from lfm_tasks.variables import ExpandedText

if TYPE_CHECKING:
    KernelName = str
else:
    KernelName = Literal[tuple(KERNELS)]


class FromEnvironment:
    """Marks a key whose value may come from the environment: it is never published and takes part in no result.

    Text of such a key stays an `ExpandedText`, which messages show as it was written.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the key; pydantic by itself makes plain text of any text."""
        return no_info_wrap_validator_function(_keep_as_written, handler(source))


def _keep_as_written(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    checked = validate(value)
    return value if isinstance(value, ExpandedText) and value == checked else checked


FROM_ENVIRONMENT = FromEnvironment()
# Of a file or a folder, or the address of one.
PathText = Annotated[str, FROM_ENVIRONMENT]
# Of what libraries, scripts and manifests get: they make further texts of it, so it is plain text.
PlainText = Annotated[str, FROM_ENVIRONMENT, AfterValidator(str)]


class Settings(BaseModel):
    """A frozen value that refuses unknown keys and never converts one type into another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def all_different(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``names``; ValueError if one stands there twice."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"got {', '.join(repeated)} more than once, expected each once. Remove the repetition")
    return names


def _number_or_auto(least: int) -> BeforeValidator:
    """Return a check of both kinds at once: of the parts of a union pydantic says one mistake each."""

    def check(value: Any) -> Any:
        if value == "auto" or (type(value) is int and value >= least):
            return value
        shown = f"the text {value!r}" if isinstance(value, str) else f"the number {value}"
        if not isinstance(value, str | int | float) or isinstance(value, bool):
            shown = repr(value)
        raise ValueError(f"got {shown}, expected auto or a whole number >= {least}")

    return BeforeValidator(check)


class GraphConfig(Settings):
    """How the neighbors of a point are found and weighted; with ``landmarks``, of so many points of a space only.

    ``center``: angles are seen from the middle of a space's points, so that translation changes no score.
    """

    metric: Literal["angular", "euclidean"] = "angular"
    center: bool = Field(default=True, description="of angular neighbors: seen from the spatial median of the points")
    kernel: KernelName = "binary"
    n_neighbors: Annotated[Annotated[int, Field(ge=1)] | Literal["auto"], _number_or_auto(1)] = "auto"
    method: Literal["auto", "exact", "projection", "pynndescent"] = "auto"
    landmarks: Annotated[Annotated[int, Field(ge=4)] | Literal["auto"], _number_or_auto(4)] | None = None

    @property
    def is_centered(self) -> bool:
        """Whether points are seen from their center; it changes no distance of ``euclidean``."""
        return self.center and self.metric == "angular"

    @property
    def has_cosine_neighbors(self) -> bool:
        """Whether neighbors are those by cosine, angles seen from the origin."""
        return not self.center and self.metric == "angular"

    @model_serializer(mode="wrap")
    def _without_landmarks(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``landmarks`` out where there are none: digests of settings without them then stay as they are."""
        settings: dict[str, Any] = handler(self)
        return settings if self.landmarks is not None else {k: v for k, v in settings.items() if k != "landmarks"}


class AnchorFile(Settings):
    """A file of ids; ``key`` names the array where a file holds several."""

    path: PathText = Field(min_length=1, max_length=4096)
    key: str | None = None


class AnchorsConfig(Settings):
    """Which points are known in both spaces: those of ``ids``, or ``count`` of the common ones, drawn by ``seed``."""

    ids: AnchorFile | None = None
    count: int | None = Field(default=None, ge=2)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_choice(self) -> "AnchorsConfig":
        if (self.ids is None) == (self.count is None):
            given = "neither" if self.ids is None else "both"
            raise ValueError(f"got {given} of ids and count, expected one: ids: {{path: anchors.txt}}, or count: 10")
        if self.ids is not None and self.seed:
            raise ValueError("got seed beside ids, which draws nothing. Remove it")
        return self


class MapsConfig(Settings):
    """From which correspondence the functional maps are fitted; ``full``: every point is known in both spaces."""

    regime: Literal["full", "anchors", "labels", "unsupervised"] = "full"
    anchors: AnchorsConfig | None = None
    mask: Literal["resolvent", "commutativity"] = "resolvent"
    refine: Literal["zoomout", "none"] = "zoomout"
    n_samples: int = Field(default=1000, ge=2, description="points of a space that ZoomOut works on")

    @model_validator(mode="after")
    def _fits_regime(self) -> "MapsConfig":
        if (self.regime == "anchors") != (self.anchors is not None):
            if self.anchors is None:
                raise ValueError("got regime anchors and no anchors, expected them: anchors: {count: 10, seed: 0}")
            raise ValueError(f"got anchors beside regime {self.regime}, expected regime: anchors, or none of them")
        usual = {"mask": "resolvent", "refine": "zoomout", "n_samples": 1000}
        beside = [name for name, value in usual.items() if getattr(self, name) != value]
        if self.regime == "full" and beside:
            raise ValueError(f"got {', '.join(beside)} beside regime full, which fits nothing. Remove it")
        if self.regime != "full" and self.refine == "zoomout" and "mask" in beside:
            raise ValueError("got mask beside refine zoomout, which has none. Remove it, or refine: none")
        if self.refine == "none" and "n_samples" in beside:
            raise ValueError("got n_samples beside refine none, which samples nothing. Remove it")
        return self


class NullConfig(Settings):
    """How the scores of unrelated spaces are sampled."""

    n_permutations: int = Field(default=100, ge=0)
    n_refined: int = Field(default=0, ge=0, description="of maps grown by ZoomOut: random pairings, each grown, too")
    seed: int = Field(default=0, ge=0)


class IntervalsConfig(Settings):
    """Intervals from halves of the points, with their own graphs and bases; ``n_splits`` 0: no intervals."""

    n_splits: int = N_SPLITS
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _two_or_none(self) -> "IntervalsConfig":
        if self.n_splits not in (0, N_SPLITS):
            raise ValueError(
                f"got n_splits {self.n_splits}, expected {N_SPLITS}, which intervals were measured with, or 0 for none"
            )
        return self


class CollectionConfig(Settings):
    """One basis for all spaces of a dataset: how many shared modes, from how many eigenpairs, fitted to how many."""

    n_modes: int = Field(default=20, ge=1)
    n_eigenpairs: int = Field(default=30, ge=2)
    max_spaces: int = Field(default=60, ge=3, description="fitted together; the others are fitted to these, one by one")

    @model_validator(mode="after")
    def _enough_eigenpairs(self) -> "CollectionConfig":
        if self.n_modes > self.n_eigenpairs:
            message = f"got {self.n_modes} modes and {self.n_eigenpairs} eigenpairs"
            raise ValueError(f"{message}, expected as many eigenpairs. Raise n_eigenpairs")
        return self


class EmbeddingsConfig(Settings):
    """Pictures and linear probes of chosen spaces: globs of models, or with ``/`` of spaces (model/layer)."""

    spaces: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(strict=False, min_length=1)]
    max_points: int = Field(default=2000, ge=10, description="a cap on points, drawn with seed")
    seed: int = Field(default=0, ge=0, lt=2**32)
    perplexity: float = Field(default=30.0, ge=1)


NO_GRAPH = (
    "got maps.regime {} beside graph.landmarks, which leave no graph of all points to fit maps on. Use regime full, "
    "or atlas.max_points instead of landmarks"
)


def _visible(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in text) or not text.strip():
        raise ValueError(f"got invisible or control characters in {text[:60]!a}, expected visible text. Remove them")
    return text


class AtlasConfig(Settings):
    """Settings of the computation, and the folders it writes to; paths are relative to the catalog."""

    title: Annotated[Annotated[str, Field(max_length=120)], AfterValidator(_visible)] | None = Field(
        default=None, description="heading of the page"
    )
    path: PathText = Field(default="atlas", min_length=1)
    store: PathText = Field(default=".lfm-atlas", min_length=1)
    remote: PlainText | None = Field(
        default=None,
        pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9][A-Za-z0-9_.=-]*)*$",
        description="S3 address of store and atlas; path and store are then this machine's copies",
    )
    keep_if_below: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the published atlas's spaces, in [0, 1], that a new one must have to replace it",
    )
    graph: GraphConfig = GraphConfig()
    n_eigenpairs: Annotated[Annotated[int, Field(ge=2)] | Literal["auto"], _number_or_auto(2)] = "auto"
    maps: MapsConfig = MapsConfig()
    # strict=False lets YAML's lists become tuples; the names themselves stay strict.
    measures: Annotated[tuple[str, ...], Field(strict=False, min_length=1), AfterValidator(all_different)] = (
        "lfm",
        "overlap",
    )
    keep_maps: Literal["best", "all", "none"] = "best"
    previews: bool = Field(default=True, description="whether inputs of the points that differ most are shown")
    embeddings: EmbeddingsConfig | None = None
    null: NullConfig = NullConfig()
    intervals: IntervalsConfig = IntervalsConfig()
    collection: CollectionConfig | None = CollectionConfig()
    min_overlap: float = Field(default=0.5, gt=0, le=1, description="share of the smaller space's ids, in (0, 1]")
    max_points: int | None = Field(default=None, ge=2, description="a cap on points, drawn with seed")
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _enough_landmarks(self) -> "AtlasConfig":
        n_landmarks = self.graph.landmarks
        if isinstance(n_landmarks, int):
            numbers = basis_numbers(n_landmarks, self.graph.n_neighbors, self.n_eigenpairs)
            needed = 2 * max(numbers) + 4
            if n_landmarks < needed:
                most = f"n_neighbors {numbers.n_neighbors} and n_eigenpairs {numbers.n_eigenpairs}"
                raise ValueError(
                    f"got {n_landmarks} landmarks with {most}, expected at least {needed}. Raise graph.landmarks"
                )
        if n_landmarks is not None and self.maps.regime != "full":
            raise ValueError(NO_GRAPH.format(self.maps.regime))
        return self

    def numbers(self, n_points: int) -> BasisNumbers:
        """Return how many neighbors and eigenpairs a space of ``n_points`` has, more where ``maps`` are fitted.

        ``n_points``: before ``max_points``. With landmarks their number decides.
        """
        n_used = n_points if self.max_points is None else min(n_points, self.max_points)
        in_graph = n_landmarks_of(n_used, self.graph.landmarks) or n_used
        is_fitted = self.maps.regime != "full"
        return basis_numbers(in_graph, self.graph.n_neighbors, self.n_eigenpairs, is_fitted=is_fitted)

    def deciding(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, as JSON values: not where things lie, nor what is published."""
        return self.model_dump(mode="json", exclude={"title", "path", "store", "remote", "keep_if_below", "previews"})
