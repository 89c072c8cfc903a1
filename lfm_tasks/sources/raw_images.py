"""Images of a dataset: files that a glob matches, encoded images in tables, arrays of pixels; read on request.

An image is decoded by Pillow, turned as its EXIF says, and given as RGB. Of an animation the first frame counts.
"""

import hashlib
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Int, Shaped

from lfm_tasks.catalog.datasets import FOLDER, POSITIONAL, DatasetFile, Images
from lfm_tasks.catalog.names import fill_pattern
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.arrow_files import find_column
from lfm_tasks.sources.files.arrow_values import Column as ArrowColumn
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.files.encoded_images import check_header, decode
from lfm_tasks.sources.files.formats import open_array
from lfm_tasks.sources.files.ids import unique_ids
from lfm_tasks.sources.files.paths import is_remote, locate, readable, refuse_placeholder
from lfm_tasks.sources.files.stored_array import StoredArray
from lfm_tasks.sources.files.tables import TABLES, fixed_folder, matching_files, read_table
from lfm_tasks.sources.raw_inputs import (
    IMAGE_COLUMN,
    Column,
    RawRows,
    read_file_column,
    table_paths,
)

if TYPE_CHECKING:
    from PIL.Image import Image

# Encoded images of a table that stay in memory: a row group is read at once, and rows are requested in another order.
_KEPT_BYTES = 1 << 28


def read_images(name: str, images: Images, root: Path, memory: DigestMemory, *, homes: Sequence[Path] = ()) -> RawRows:
    """Return the images of the dataset called ``name``, of which only headers are read.

    Raises
    ------
    DataError
        ``missing_source`` for files, columns or arrays that are not there; ``bad_ids``; ``bad_inputs`` for what is no
        array of pixels; ``missing_package`` without Pillow.
    """
    _pillow(name)
    rows = {"files": _file_rows, "array": _array_rows, "table": _table_rows}[images.kind]
    return rows(name, images, root, memory, homes)


def image_files_of(
    name: str, path: str, ids: Shaped[np.ndarray, " points"], root: Path, memory: DigestMemory, *, homes: Sequence[Path]
) -> "ImageFiles":
    """Return for each id of the dataset called ``name`` the image file that a glob matches and that is called so.

    A file is called by its path below the folder above the first wildcard, with or without its suffix.

    Raises
    ------
    DataError
        ``missing_source`` for a glob that matches nothing; ``bad_inputs`` for ids that no file is called, or several;
        ``missing_package`` without Pillow.
    """
    _pillow(name)
    found = _file_rows(name, Images(path=path), root, memory, homes)
    files, place_of = found.inputs, {str(one): place for place, one in enumerate(found.ids)}
    without_suffix: dict[str, list[int]] = {}
    for one, place in place_of.items():
        without_suffix.setdefault(PurePath(one).with_suffix("").as_posix(), []).append(place)
    wanted = [unicodedata.normalize("NFC", str(one)) for one in ids]
    places = [[place_of[one]] if one in place_of else without_suffix.get(one, []) for one in wanted]
    odd = [(one, len(of)) for one, of in zip(wanted, places, strict=True) if len(of) != 1]
    if odd:
        (first, n_files), example = odd[0], str(found.ids[0])
        problem = f"got {n_files} files called {ascii(first)[:80]} ({len(odd)} of {len(wanted)} ids are so)"
        needed = f"expected one of each id, as {ascii(example)[:80]} is called, with or without its suffix"
        raise DataError("bad_inputs", f"{path}: {problem}, {needed}. Name the files by the ids of {name}")
    if not isinstance(files, ImageFiles):
        raise TypeError(f"{path}: a glob matches files")
    return replace(files, names=tuple(files.names[of[0]] for of in places))


@dataclass(frozen=True)
class ImageFiles:
    """Images in files of their own; ``names`` are their paths below ``folder``, which messages call ``label``."""

    folder: Path
    names: tuple[str, ...]
    memory: DigestMemory = field(repr=False)
    label: str = ""
    kind: Literal["images"] = "images"
    memory_bytes: int = 0

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self.names)

    def read(self, rows: Int[np.ndarray, " selected"]) -> list["Image"]:
        """Return the chosen images, in the order of ``rows``."""
        return [self._read(row) for row in rows.tolist()]

    def _read(self, row: int) -> "Image":
        name = self._name(row)
        with readable(name):
            content = (self.folder / self.names[row]).read_bytes()
        if "_digests" in self.__dict__ and hashlib.sha256(content).hexdigest() != self._digests[row]:
            problem = "got another image than when the run began, expected it to stay"
            raise DataError("missing_source", f"{name}: {problem}. Run again")
        return decode(content, name)

    def digest(self) -> str:
        """Return the SHA-256 of the content of all files, in their order; of new files the header is checked."""
        return hashlib.sha256(f"images:{len(self)} {' '.join(self._digests)}".encode()).hexdigest()

    def _name(self, row: int) -> str:
        return PurePath(self.label, self.names[row]).as_posix()

    @cached_property
    def _digests(self) -> tuple[str, ...]:
        return tuple(self._digest_of(row) for row in range(len(self)))

    def _digest_of(self, row: int) -> str:
        path, name = self.folder / self.names[row], self._name(row)

        def check() -> None:
            refuse_placeholder(path)
            with path.open("rb") as file:
                check_header(file, name)

        with readable(name):
            return self.memory.file_digest(path, check)

    def lengths(self) -> Int[np.ndarray, " points"]:
        """Return zeros: all images take as long."""
        return np.zeros(len(self), np.int64)


@dataclass(frozen=True)
class ImageTable:
    """Encoded images in a column of tables, as ``datasets`` writes it: bytes, or a struct with a field ``bytes``.

    Batches of rows are decoded by the table's reader at once; those that were read last stay in memory.
    """

    columns: tuple[ArrowColumn, ...]
    paths: tuple[Path, ...]
    memory: DigestMemory = field(repr=False)
    kind: Literal["images"] = "images"

    @property
    def memory_bytes(self) -> int:
        """Bytes of encoded images that stay in memory at most."""
        return _KEPT_BYTES

    @cached_property
    def _ends(self) -> Int[np.ndarray, " batches"]:
        return np.array(list(accumulate(n_rows for column in self.columns for n_rows in column.batch_rows)), np.int64)

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """The column and the batch in it of each batch of all columns."""
        return [(which, batch) for which, column in enumerate(self.columns) for batch in range(len(column.batch_rows))]

    @cached_property
    def _kept(self) -> dict[int, Any]:
        return {}

    def __len__(self) -> int:
        """Return how many images there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, rows: Int[np.ndarray, " selected"]) -> list["Image"]:
        """Return the chosen images, in the order of ``rows``."""
        return [decode(self._encoded(row), self._name(row)) for row in rows.tolist()]

    def digest(self) -> str:
        """Return the SHA-256 of all encoded images, in their order; the header of each is checked."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        if any(is_remote(path) for path in self.paths):
            return self._hash()
        files = [self.memory.file_digest(file) for path in self.paths for file in _files_of(path)]
        key = f"images {[column.name for column in self.columns]} {files}"
        known = self.memory.recall(key)
        if not isinstance(known, str):
            known = self._hash()
            self.memory.remember(key, known)
        return known

    def _hash(self) -> str:
        hasher = hashlib.sha256(f"images:{len(self)}".encode())
        for row in range(len(self)):
            content = self._encoded(row)
            check_header(io.BytesIO(content), self._name(row))
            hasher.update(hashlib.sha256(content).hexdigest().encode())
        return hasher.hexdigest()

    def lengths(self) -> Int[np.ndarray, " points"]:
        """Return zeros: all images take as long."""
        return np.zeros(len(self), np.int64)

    def _name(self, row: int) -> str:
        batch = int(np.searchsorted(self._ends, row, side="right"))
        which, _ = self._places[batch]
        first = sum(sum(column.batch_rows) for column in self.columns[:which])
        return f"{self.columns[which].name}: row {row - first} (counted from 0)"

    def _encoded(self, row: int) -> bytes:
        batch = int(np.searchsorted(self._ends, row, side="right"))
        if batch not in self._kept:
            self._kept[batch] = self._decoded_batch(batch)
            while len(self._kept) > 1 and sum(array.nbytes for array in self._kept.values()) > _KEPT_BYTES:
                del self._kept[next(iter(self._kept))]
        start = int(self._ends[batch - 1]) if batch else 0
        value = self._kept[batch][row - start].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            found = "nothing (null)" if value is None else f"a {type(value).__name__}"
            if isinstance(value, dict) and value.get("path"):
                found = f"the path {ascii(str(value['path']))[:100]} without bytes"
            advice = "Embed the images (datasets.Image with decode), or name their files by a glob"
            raise DataError("bad_inputs", f"{self._name(row)}: got {found}, expected the bytes of an image. {advice}")
        return content

    def _decoded_batch(self, batch: int) -> Any:
        which, index = self._places[batch]
        column = self.columns[which]
        with readable(column.name), column.open() as read:
            values = read(index)
            values.validate(full=True)  # offsets that lead out of the values would crash the process
        return values


@dataclass(frozen=True)
class ImageArray:
    """Images as an array of bytes: (points, height, width) for gray ones, (points, height, width, 3) for RGB."""

    array: StoredArray
    memory: DigestMemory = field(repr=False)
    kind: Literal["images"] = "images"

    @property
    def memory_bytes(self) -> int:
        """Bytes of the array that are in memory while any rows are read."""
        return self.array.memory_bytes

    def __len__(self) -> int:
        """Return how many images there are."""
        return self.array.shape[0]

    def read(self, rows: Int[np.ndarray, " selected"]) -> list["Image"]:
        """Return the chosen images, in the order of ``rows``."""
        from PIL import Image

        with self.array.rows() as read:
            pixels = read(rows)
        return [Image.fromarray(one).convert("RGB") for one in pixels.reshape(len(pixels), *self._size)]

    @property
    def _size(self) -> tuple[int, ...]:
        shape = self.array.shape[1:]
        return shape[:2] if shape[2:] == (1,) else shape

    def digest(self) -> str:
        """Return the SHA-256 of all pixels."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        if is_remote(self.array.path):
            return self.array.sha256()
        key = f"array {self.array.name} {self.memory.file_digest(self.array.path)}"
        known = self.memory.recall(key)
        if not isinstance(known, str):
            known = self.array.sha256()
            self.memory.remember(key, known)
        return known

    def lengths(self) -> Int[np.ndarray, " points"]:
        """Return zeros: all images take as long."""
        return np.zeros(len(self), np.int64)


def _files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _pillow(name: str) -> None:
    if find_spec("PIL") is None:
        problem = f"dataset {name}: got images and no Pillow, expected it to decode them"
        raise DataError("missing_package", f'{problem}. Install it: pip install "lfm-atlas[hf]"')


def _file_rows(name: str, images: Images, root: Path, memory: DigestMemory, homes: Sequence[Path]) -> RawRows:
    pattern = fill_pattern(images.path, dataset=name)
    found = matching_files(root, pattern, homes)
    ids = unique_ids(np.array([unicodedata.normalize("NFC", one) for one in found]), pattern)
    order = np.argsort(ids, kind="stable")
    folder = root / fixed_folder(pattern)
    names = tuple(found[index] for index in order)
    files = ImageFiles(folder, names, memory, fixed_folder(pattern).as_posix())
    ids = ids[order]
    if images.label == FOLDER:
        top = unicodedata.normalize("NFC", folder.name)
        labels = np.array([PurePath(one).parent.name or top for one in ids.tolist()])
        return RawRows(files, ids, labels)
    return RawRows(files, ids, _file_labels(name, images, root, len(ids)))


def _table_rows(name: str, images: Images, root: Path, memory: DigestMemory, homes: Sequence[Path]) -> RawRows:
    id_column = images.id if isinstance(images.id, str) and images.id != POSITIONAL else None
    label_column = images.label if isinstance(images.label, str) else None
    wanted = list(dict.fromkeys(filter(None, (id_column, label_column))))
    ids, labels = Column(), Column()
    columns: list[ArrowColumn] = []
    paths: list[Path] = []
    for path, label in table_paths(name, images.path, root, (images.storage, images.split), homes):
        if path.suffix not in TABLES and not path.is_dir():
            problem = f"{label}: got one file that is no table, expected images by a glob, a table or an array"
            raise DataError("missing_source", f"{problem}. Name them like this: images/*.png, or photos.parquet")
        paths.append(path)
        with readable(label):
            columns.append(find_column(path, label, images.image or IMAGE_COLUMN))
        for batch in read_table(path, label, wanted) if wanted else ():
            of_column = dict(zip(wanted, batch.columns, strict=True))
            if id_column is not None:
                ids.add(of_column[id_column], batch.places)
            if label_column is not None:
                labels.add(of_column[label_column], batch.places)
    table = ImageTable(tuple(columns), tuple(paths), memory)
    if not len(table):
        raise DataError("bad_inputs", f"{images.path}: got no images, expected one a row. Check the file")
    named = ids.as_ids(images.path) if id_column is not None else _ids(name, images, root, len(table))
    of_rows = labels.as_labels() if label_column is not None else _file_labels(name, images, root, len(table))
    return RawRows(table, named, of_rows)


def _array_rows(name: str, images: Images, root: Path, memory: DigestMemory, _homes: Sequence[Path]) -> RawRows:
    pattern = fill_pattern(images.path, dataset=name)
    array = open_array(locate(root, pattern, images.storage), pattern, images.image)
    if array.dtype != np.uint8 or not (len(array.shape) == 3 or (len(array.shape) == 4 and array.shape[3] in (1, 3))):
        problem = f"got {array.dtype} of shape {array.shape}"
        needed = "expected uint8 of shape (points, height, width) or (points, height, width, 3)"
        raise DataError("bad_inputs", f"{array.name}: {problem}, {needed}. Convert the pixels to bytes, 0 to 255")
    n_rows = array.shape[0]
    labels = _file_labels(name, images, root, n_rows)
    return RawRows(ImageArray(array, memory), _ids(name, images, root, n_rows), labels)


def _ids(name: str, images: Images, root: Path, n_rows: int) -> Shaped[np.ndarray, " points"]:
    if not isinstance(images.id, DatasetFile):
        return np.arange(n_rows).astype(str)
    label, values = read_file_column(images.id, name, root, "ids", n_rows)
    return unique_ids(values, label)


def _file_labels(name: str, images: Images, root: Path, n_rows: int) -> Shaped[np.ndarray, " points"] | None:
    if isinstance(images.label, DatasetFile):
        return read_file_column(images.label, name, root, "labels", n_rows)[1]
    return None
