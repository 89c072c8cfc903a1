"""Raw inputs of a dataset, texts or images, which each model prepares with its own tokenizer or processor.

`read_texts` opens what a catalog names. A further kind of images is a class in ``raw_images.py``, a further kind of
table a row of `lfm_tasks.sources.files.tables.TABLES`.
"""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog.datasets import POSITIONAL, DatasetFile, Texts
from lfm_tasks.catalog.names import fill_pattern, has_wildcard
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.ids import as_text, unique_ids
from lfm_tasks.sources.files.paths import locate
from lfm_tasks.sources.files.stored_array import MAX_MEMORY_BYTES
from lfm_tasks.sources.files.tables import fixed_folder, matching_files, read_table, table_bytes
from lfm_tasks.sources.layers import FilePattern, reading_of


@runtime_checkable
class RawInputs(Protocol):
    """The texts or images of a dataset, in the order of its ids."""

    @property
    def kind(self) -> Literal["texts", "images"]:
        """The kind of the rows."""
        ...

    @property
    def memory_bytes(self) -> int:
        """Bytes that are in memory as long as the inputs are open, beside the rows that were just read."""
        ...

    def __len__(self) -> int:
        """Return how many rows there are."""
        ...

    def read(self, rows: Int[np.ndarray, " selected"]) -> Sequence[Any]:
        """Return the chosen rows in the order of ``rows``: a list of ``str``, or of RGB ``PIL.Image.Image``.

        A large photo takes 100 MiB: read as few images at a time as are prepared together.

        Raises
        ------
        DataError
            ``bad_inputs`` for a broken or too large image, with its file or row.
        """
        ...

    def digest(self) -> str:
        """Return the SHA-256 of the content of all rows, in their order."""
        ...

    def lengths(self) -> Int[np.ndarray, " points"]:
        """Return the characters of each text; zeros for images."""
        ...


@dataclass(frozen=True)
class RawRows:
    """Raw inputs with what names and labels them; ``ids`` are unique."""

    inputs: RawInputs
    ids: Shaped[np.ndarray, " points"]
    labels: Shaped[np.ndarray, " points"] | None = None


@dataclass(frozen=True)
class TextRows:
    """Texts in one piece of memory: the UTF-8 of all, where each ends, and how many characters each has."""

    content: bytearray
    ends: Int[np.ndarray, " points"]
    n_characters: Int[np.ndarray, " points"]
    kind: Literal["texts"] = "texts"

    @property
    def memory_bytes(self) -> int:
        """Bytes of all texts, and of their places."""
        return len(self.content) + self.ends.nbytes + self.n_characters.nbytes

    def __len__(self) -> int:
        """Return how many texts there are."""
        return len(self.ends)

    def read(self, rows: Int[np.ndarray, " selected"]) -> list[str]:
        """Return the chosen texts, in the order of ``rows``."""
        starts = np.where(rows > 0, self.ends[rows - 1], 0)
        return [self.content[start:end].decode() for start, end in zip(starts, self.ends[rows], strict=True)]

    def digest(self) -> str:
        """Return the SHA-256 of all texts in their order; where each ends is mixed in."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.sha256(f"texts:{len(self)}".encode())
        hasher.update(self.ends.astype("<i8").tobytes())
        hasher.update(self.content)
        return hasher.hexdigest()

    def lengths(self) -> Int[np.ndarray, " points"]:
        """Return the characters of each text."""
        return self.n_characters


class TextBuilder:
    """Gathers texts into `TextRows`; refuses what is no text, and more than fit into memory."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._content = bytearray()
        self._ends = array("q")
        self._lengths = array("q")

    def add(self, text: Any, place: str) -> None:
        """Take one text; DataError ``bad_inputs`` with its place if it is none, or empty."""
        if not isinstance(text, str):
            found = "no text (null)" if text is None else f"a {type(text).__name__}"
            raise DataError("bad_inputs", f"{place}: got {found}, expected text. Leave the row out, or fix it")
        if not text.strip():
            raise DataError("bad_inputs", f"{place}: got an empty text, expected words. Leave the row out, or fix it")
        try:
            self._content += text.encode()
        except UnicodeEncodeError as error:
            problem = "got half of a surrogate pair, expected Unicode text"
            raise DataError("bad_inputs", f"{place}: {problem}. Save the file as UTF-8") from error
        if len(self._content) > MAX_MEMORY_BYTES:
            limit = f"at most {MAX_MEMORY_BYTES >> 30} GiB, which every worker holds"
            raise DataError("bad_inputs", f"{self._name}: got more text than that, expected {limit}. Split the dataset")
        self._ends.append(len(self._content))
        self._lengths.append(len(text))

    def rows(self) -> TextRows:
        """Return all texts; DataError ``bad_inputs`` if there are none."""
        if not self._ends:
            raise DataError("bad_inputs", f"{self._name}: got no texts, expected one a row. Check the file")
        ends, lengths = (np.frombuffer(values, np.int64).copy() for values in (self._ends, self._lengths))
        return TextRows(self._content, ends, lengths)


@dataclass(frozen=True)
class TokenPoints:
    """The tokens of the texts of a dataset, text after text.

    Attributes
    ----------
    texts, text_ids
        The texts and their ids.
    n_tokens
        How many tokens each text has, special ones included.
    tokens_digest
        The SHA-256 of all tokens: what models have to share.
    model
        The model whose tokenizer made them.
    """

    texts: RawInputs
    text_ids: Shaped[np.ndarray, " texts"]
    n_tokens: Int[np.ndarray, " texts"]
    tokens_digest: str
    model: str

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return int(self.n_tokens.sum())

    @cached_property
    def text_of(self) -> Int[np.ndarray, " points"]:
        """The text that each token stands in."""
        return np.repeat(np.arange(len(self.n_tokens)), self.n_tokens)

    @cached_property
    def first_of(self) -> Int[np.ndarray, " texts"]:
        """The first token of each text."""
        return np.cumsum(self.n_tokens) - self.n_tokens

    @cached_property
    def ids(self) -> Shaped[np.ndarray, " points"]:
        """``text#position``, positions from 0."""
        positions = np.arange(len(self)) - self.first_of[self.text_of]
        names = zip(self.text_ids[self.text_of].tolist(), positions.tolist(), strict=True)
        return np.array([f"{text}#{position}" for text, position in names])


# The columns where the catalog names none.
TEXT_COLUMN, IMAGE_COLUMN = "text", "image"


def read_texts(name: str, texts: Texts, root: Path, *, homes: Sequence[Path] = ()) -> RawRows:
    """Return the texts of the dataset called ``name``; ``homes``: folders that links may lead into.

    Raises
    ------
    DataError
        ``bad_inputs`` for a row that is no text, with file and line; ``missing_source`` for the file or a column;
        ``bad_ids``.
    """
    builder, ids, labels = TextBuilder(texts.path), Column(), Column()
    id_column = None if texts.id in (None, POSITIONAL) else texts.id
    wanted = list(dict.fromkeys(filter(None, (texts.text or TEXT_COLUMN, id_column, texts.label))))
    for path, label in table_paths(name, texts.path, root, (texts.storage, texts.split), homes):
        if (n_bytes := table_bytes(path)) > 4 * MAX_MEMORY_BYTES:
            limit = f"at most {4 * MAX_MEMORY_BYTES >> 30} GiB"
            raise DataError("bad_inputs", f"{label}: got {n_bytes >> 30} GiB, expected {limit}. Split the dataset")
        for batch in read_table(path, label, wanted):
            of_column = dict(zip(wanted, batch.columns, strict=True))
            for text, place in zip(batch.columns[0], batch.places, strict=True):
                builder.add(text, place)
            if id_column is not None:
                ids.add(of_column[id_column], batch.places)
            if texts.label is not None:
                labels.add(of_column[texts.label], batch.places)
    rows = builder.rows()
    named = ids.as_ids(texts.path) if id_column is not None else np.arange(len(rows)).astype(str)
    return RawRows(rows, named, labels.as_labels() if texts.label is not None else None)


def table_paths(
    name: str, pattern: str, root: Path, part: tuple[str | None, str | None], homes: Sequence[Path] = ()
) -> Iterator[tuple[Path, str]]:
    """Yield the tables that a dataset names, one or all that a glob matches, and how messages call each.

    ``part``: the storage and the split. ``homes``: folders that links may lead into.
    """
    text, (storage, split) = fill_pattern(pattern, dataset=name), part
    if has_wildcard(text):
        fixed = fixed_folder(text)
        names = [(fixed / found).as_posix() for found in matching_files(root, text, homes)]
    else:
        names = [text if split is None else f"{text}/{split}"]
    for one in names:
        yield locate(root, one, storage), one


class Column:
    """Gathers the values of one column, which are to be ids or labels."""

    def __init__(self) -> None:
        self._values: list[Any] = []
        self._places: list[str] = []

    def add(self, values: Sequence[Any], places: Sequence[str]) -> None:
        """Take the next values; DataError ``bad_inputs`` with the place of one that is neither text nor number."""
        for value, place in zip(values, places, strict=True):
            if value is not None and not isinstance(value, str | int | float):
                problem = f"got a {type(value).__name__} as an id or a label, expected text or a number"
                raise DataError("bad_inputs", f"{place}: {problem}. Name another column")
            self._values.append(value)
            self._places.append(place)

    def as_ids(self, label: str) -> Shaped[np.ndarray, " points"]:
        """Return the values as unique ids."""
        kind: type | None = None
        for value, place in zip(self._values, self._places, strict=True):
            if value is None or isinstance(value, bool | float):
                found = "no value" if value is None else f"the {type(value).__name__} {value}"
                problem = f"got {found} as an id, expected text or a whole number"
                raise DataError("bad_ids", f"{place}: {problem}. Name another column, or id: positional")
            kind = kind or type(value)
            if type(value) is not kind:
                found, other = ("text", "numbers") if isinstance(value, str) else ("a number", "texts")
                problem = f"got {found} as an id, {ascii(value)[:60]}, expected {other} as in {self._places[0]}"
                raise DataError("bad_ids", f"{place}: {problem}. Write all ids alike")
        texts = [str(value) for value in self._values]
        return unique_ids(np.array(texts) if texts else np.empty(0, "U1"), label, self._places.__getitem__)

    def as_labels(self) -> Shaped[np.ndarray, " points"]:
        """Return whole numbers as they are, everything else as text; no value becomes the empty text."""
        if all(isinstance(value, int) and abs(value) < 2**63 for value in self._values):
            return np.array(self._values, dtype=np.int64)
        return as_text(np.array(["" if value is None else str(value) for value in self._values]), "labels")


def read_file_column(
    file: DatasetFile, name: str, root: Path, what: str, n_rows: int
) -> tuple[str, Shaped[np.ndarray, " points"]]:
    """Return how messages call an array in a file of its own, and its values, one for each row of a dataset."""
    path = fill_pattern(file.path, dataset=name)
    key = None if file.key is None else fill_pattern(file.key, dataset=name)
    stored = FilePattern(root, path, key, file.storage, reading_of(file)).open()
    values = stored.load()
    if len(values) != n_rows:
        problem = f"got {len(values)} {what} and {n_rows} rows, expected one for each row"
        raise DataError("bad_ids", f"{stored.name}: {problem}. Give the {what} of these rows, in their order")
    return stored.name, values
