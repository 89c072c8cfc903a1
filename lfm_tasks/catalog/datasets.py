"""The section ``datasets``: the numbers or raw inputs that models are compared on.

A new key is a field of its class, with a line in ``docs/catalog.md``.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, create_model, model_validator

from lfm_tasks.catalog.names import check_fields, check_name, check_visible, describe, has_wildcard
from lfm_tasks.config import FROM_ENVIRONMENT, Settings

Name = Annotated[str, AfterValidator(check_name)]


_PatternText = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(check_visible)]


def _without_secrets(text: str) -> str:
    """Return ``text``; ValueError for an address with credentials, which would stand in messages and logs."""
    if re.match(r"[a-z][a-z0-9+.-]*://([^/]*@|[^?]*\?)", text, re.IGNORECASE):
        problem = "got an address with a user or a query, which may hold a secret"
        raise ValueError(f"{problem}, expected a plain one. Give access by storage:")
    return text


PlainText = Annotated[
    str, Field(min_length=1, max_length=4096), AfterValidator(check_visible), AfterValidator(_without_secrets)
]


def with_fields(*allowed: str) -> AfterValidator:
    """Return the check that a pattern names no other fields than ``allowed``."""
    return AfterValidator(lambda pattern: check_fields(pattern, allowed))


# Names an environment variable, LFM_ATLAS_STORAGE_<NAME>, that holds what gives access; never the access itself.
Storage = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"), FROM_ENVIRONMENT]

DatasetText = Annotated[PlainText, with_fields("dataset")]
ModelText = Annotated[PlainText, with_fields("model", "dataset")]
LayerText = Annotated[PlainText, with_fields("model", "layer", "dataset", "id")]

# How a file is stored, where its suffix does not tell.
FileFormat = Literal["npy", "npz", "safetensors", "hdf5", "netcdf", "parquet", "arrow", "torch", "text"]


def _one_dataset(value: object) -> object:
    if isinstance(value, list | tuple):
        example = ", ".join(f"{{dataset: {name}}}" for name in value[:2]) if value else "{dataset: a}, {dataset: b}"
        raise ValueError(
            f"got {describe(value)}, expected one dataset. List a source for each, [{example}], with its keys"
        )
    return value


# The dataset of one source of rows.
SourceDataset = Annotated[str, BeforeValidator(_one_dataset, json_schema_input_type=str)]


class ArrayFile(Settings):
    """Arrays in a file: its path, and how it is read."""

    path: Annotated[Annotated[PlainText, with_fields("model", "layer", "dataset", "shard", "id")], FROM_ENVIRONMENT]
    key: LayerText | None = None
    storage: Storage | None = None
    format: FileFormat | None = Field(default=None, description="of a file whose suffix does not tell")
    columns: Annotated[tuple[_PatternText, ...], Field(strict=False)] = Field(
        default=(), description="globs of columns of numbers: each is a feature"
    )
    read_as: Literal["bfloat16"] | None = Field(default=None, description="what 16 bits without a type stand for")
    unpack: bool = Field(default=True, description="scale_factor, add_offset and marks of missing values are applied")
    missing_chunks: Literal["refuse", "fill"] = Field(
        default="refuse", description="fill: chunks that were never written hold the fill value"
    )

    @model_validator(mode="after")
    def _key_or_columns(self) -> Self:
        if self.columns and self.key is not None:
            raise ValueError("got key and columns, expected one: a key names one array, columns are features")
        return self


class DatasetFile(ArrayFile):
    """One array in a file; ``key`` names it where a file holds several; ``{shard}`` in ``path`` joins files."""

    path: Annotated[Annotated[PlainText, with_fields("dataset", "shard")], FROM_ENVIRONMENT]
    key: DatasetText | None = None


class ModelFile(ArrayFile):
    """One array in a file that belongs to a model; ``{shard}`` in ``path`` joins files."""

    path: Annotated[Annotated[PlainText, with_fields("model", "dataset", "shard")], FROM_ENVIRONMENT]
    key: ModelText | None = None


# What ids are made of before they are joined: nothing is changed that the catalog does not ask for.
IdForm = Literal["name", "stem", "number", "nfc", "stripped"]
_AS: dict[str, Any] = {"as": (IdForm | None, Field(default=None, description="what is compared of each id"))}


class DatasetIds(create_model("DatasetIds", __base__=DatasetFile, **_AS)):  # type: ignore[misc]
    """The ids of a dataset; ``as: stem`` takes the file name without folders and suffix of each."""

    @property
    def form(self) -> IdForm | None:
        """The part of each id that is compared; None: the whole id."""
        form: IdForm | None = getattr(self, "as")
        return form


class ModelIds(create_model("ModelIds", __base__=ModelFile, **_AS)):  # type: ignore[misc]
    """The ids of a model's rows; see `DatasetIds`."""

    @property
    def form(self) -> IdForm | None:
        """The part of each id that is compared; None: the whole id."""
        form: IdForm | None = getattr(self, "as")
        return form


def _written_as(value: object) -> str:
    return "<word>" if isinstance(value, str) else "<file>"


Ids = Annotated[
    Annotated[DatasetIds, Tag("<file>")] | Annotated[Literal["positional"], Tag("<word>")], Discriminator(_written_as)
]
Strata = Annotated[
    Annotated[DatasetFile, Tag("<file>")] | Annotated[Literal["labels"], Tag("<word>")], Discriminator(_written_as)
]
# What the words of ``id`` and ``label`` mean, where they are no columns.
POSITIONAL, FOLDER = "positional", "folder"
_ARRAYS, _TABLES = (".npy", ".npz"), (".parquet", ".pq", ".arrow", ".feather")
_Column = Annotated[PlainText, Field(max_length=256)]
# A column of the table, or an array in a file of its own.
ColumnOrFile = Annotated[
    Annotated[DatasetFile, Tag("<file>")] | Annotated[_Column, Tag("<word>")], Discriminator(_written_as)
]


class Texts(Settings):
    """A table with a text a row: .jsonl, .csv, .parquet, .arrow, a ``save_to_disk`` folder; or .txt, a text a line.

    ``text``, ``id`` and ``label`` name columns; ``id: positional`` takes the numbers of the rows.
    """

    path: Annotated[DatasetText, FROM_ENVIRONMENT]
    text: _Column | None = Field(default=None, description="the column of the texts; by default text")
    id: _Column | None = Field(default=None, description="the column of the ids, or positional")
    label: _Column | None = None
    split: Name | None = Field(default=None, description="of a saved dataset that has several")
    storage: Storage | None = None

    @model_validator(mode="after")
    def _named_rows(self) -> "Texts":
        is_plain = self.path.lower().endswith(".txt")
        if is_plain and (self.text or self.label or self.id not in (None, POSITIONAL)):
            raise ValueError("got columns of a .txt file, which has a text a line, expected none. Remove them")
        if not is_plain and self.id is None:
            raise ValueError("got no id, expected the column of the ids: id: id, or id: positional, on purpose")
        if has_wildcard(self.path) and (self.storage or self.split):
            raise ValueError("got a glob with storage or split, expected files of this machine. Name one file")
        return self


class Images(Settings):
    """Image files that a glob matches; or images in a table (.parquet, .arrow, ``save_to_disk``) or array (.npy, .npz).

    The id of a file is its path below the folder above the first wildcard. ``label: folder`` takes the name of the
    folder that the file lies in.
    """

    path: Annotated[DatasetText, FROM_ENVIRONMENT]
    image: _Column | None = Field(default=None, description="the column of a table, by default image; a key of .npz")
    id: ColumnOrFile | None = Field(default=None, description="the column of the ids, a file of them, or positional")
    label: ColumnOrFile | None = Field(default=None, description="folder, the column of the labels, or a file of them")
    split: Name | None = Field(default=None, description="of a saved dataset that has several")
    storage: Storage | None = None

    @property
    def kind(self) -> Literal["files", "array", "table"]:
        """The kind of source that the images lie in."""
        if self.path.lower().endswith(_ARRAYS):
            return "array"
        return "files" if has_wildcard(self.path) and not self.path.lower().endswith(_TABLES) else "table"

    @model_validator(mode="after")
    def _named_rows(self) -> "Images":
        kind = self.kind
        if kind == "files" and self.id is not None:
            raise ValueError("got id beside a glob, whose files are named by their paths. Remove it")
        if kind == "table" and self.id is None:
            raise ValueError("got no id, expected the column of the ids: id: id, or id: positional, on purpose")
        if kind == "array" and (self.id is None or (isinstance(self.id, str) and self.id != POSITIONAL)):
            raise ValueError("got no file of ids for an array, expected one: id: {path: ids.npy}, or id: positional")
        fixed = {"files": FOLDER, "array": None}.get(kind, self.label)
        if isinstance(self.label, str) and self.label != fixed:
            ways = "label: folder, or label: {path: labels.npy}" if kind == "files" else "label: {path: labels.npy}"
            raise ValueError(f"got the column {self.label!r} as label, and images that are in no table. Use {ways}")
        if has_wildcard(self.path) and (self.storage or self.split):
            raise ValueError("got a glob with storage or split, expected files of this machine. Name one file")
        return self


class Dataset(Settings):
    """Inputs that models are compared on: shipped (``builtin``), raw (``texts``, ``images``), or named by ``ids``."""

    builtin: Literal["digits"] | None = None
    split: Literal["train", "probe"] | None = None
    texts: Texts | None = None
    images: Images | None = None
    ids: Ids | None = None
    labels: DatasetFile | None = None
    inputs: DatasetFile | None = None
    previews: DatasetFile | None = Field(
        default=None, description="what rows look like: pictures, texts, or image files"
    )
    groups: DatasetFile | None = None
    strata: Strata | None = None
    points: DatasetIds | None = Field(default=None, description="the ids that are compared; by default all")
    exclude: DatasetIds | None = Field(default=None, description="ids that are left out")
    repeats: Literal["mean"] | None = Field(default=None, description="mean: several rows of an id become their mean")

    @property
    def raw(self) -> Texts | Images | None:
        """The raw inputs; None where the dataset holds numbers."""
        return self.texts or self.images

    @property
    def has_names(self) -> bool:
        """Whether ids are more than the numbers of rows."""
        of_texts = self.texts is None or not (self.texts.id == POSITIONAL or self.texts.path.lower().endswith(".txt"))
        of_images = self.images is None or self.images.id != POSITIONAL
        return self.ids != POSITIONAL and of_texts and of_images

    @property
    def kind(self) -> Literal["texts", "images", "numbers", "nothing"]:
        """The kinds of inputs that a network can run on."""
        if self.texts is not None:
            return "texts"
        if self.images is not None:
            return "images"
        return "nothing" if self.builtin is None and self.inputs is None else "numbers"

    @model_validator(mode="after")
    def _one_origin(self) -> "Dataset":
        origins = [name for name in ("builtin", "texts", "images", "ids") if getattr(self, name) is not None]
        if len(origins) != 1:
            which = "neither" if not origins else "both" if len(origins) == 2 else "all"
            listed = "builtin, texts, images and ids" if not origins else " and ".join(origins)
            ways = "texts: {path: texts.jsonl, id: id}, images: {path: 'images/*.png'}, ids: {path: ids.npy}"
            raise ValueError(f"got {which} of {listed}, expected one: {ways}, or ids: positional")
        if self.builtin is not None and (self.labels or self.inputs):
            raise ValueError("got labels or inputs beside builtin, which brings its own. Remove them")
        if self.raw is not None and self.inputs is not None:
            raise ValueError(f"got inputs beside {origins[0]}, expected one: each model prepares raw inputs by itself")
        if self.raw is not None and self.labels is not None and self.raw.label is not None:
            raise ValueError(f"got labels beside {origins[0]}.label, expected one of them. Remove the other")
        if self.repeats is not None and (self.inputs is not None or not isinstance(self.ids, DatasetFile)):
            raise ValueError("got repeats without ids from a file, or beside inputs, expected rows that were recorded")
        if self.groups is not None and self.strata is not None:
            raise ValueError("got groups and strata, expected one of them: whole groups move, or rows within strata")
        has_labels = self.builtin is not None or self.labels is not None or (self.raw and self.raw.label is not None)
        if self.strata == "labels" and not has_labels:
            raise ValueError("got strata: labels, but no labels. Name their file")
        if self.builtin is None and self.split is not None:
            raise ValueError("got split without builtin. Remove it, or name the files of that split")
        return self
