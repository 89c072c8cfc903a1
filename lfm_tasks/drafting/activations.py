"""A first catalog for files of activations: which files are models, which arrays are layers, ids, labels and masks."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from lfm_tasks.catalog.names import check_name, has_wildcard
from lfm_tasks.drafting.draft import CATALOG, Draft, as_flow, relative
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import FOLDER_FORMATS, FORMATS, Reading, find_format, open_array
from lfm_tasks.sources.files.ids import unique_ids
from lfm_tasks.sources.files.paths import natural_order
from lfm_tasks.sources.files.stored_array import StoredArray

_IDS = re.compile(r"(.*[._-])?(ids?|file_?names?|stimul(us|i)|stimulus_ids?|image_ids?|sample_ids?|keys?|index)", re.I)
_LABELS = re.compile(r"(.*[._-])?(labels?|targets?|class(es)?)", re.IGNORECASE)
_MASK = re.compile(r"(.*[._/-])?(attention_)?mask", re.IGNORECASE)
_NO_LAYERS = re.compile(r"(input|token|position|token_type)_ids", re.IGNORECASE)
_DATASET = "probe"
_MOST_FILES = 10_000
_MOST_LISTED = 8
_FEWEST_COLUMNS = 2
_DIGITS_BEHIND = re.compile(r"(.*?)[0-9]+\Z", re.DOTALL)


@dataclass(frozen=True)
class _Found:
    """The arrays of one file, by key (None: its only one), and why others cannot be read."""

    path: Path
    arrays: Mapping[str | None, StoredArray]
    broken: Mapping[str | None, str] = field(default_factory=dict)


def looks_like_activations(zoo: Path) -> bool:
    """Return whether ``zoo`` is a glob, a file, or a folder with files of arrays, be it one folder below."""
    if has_wildcard(str(zoo)) or zoo.is_file() or _is_array_folder(zoo):
        return True
    if not zoo.is_dir():
        return False
    if any(_is_array(entry) and not _is_beside(entry) for entry in zoo.iterdir()):
        return True
    # Checkpoints hold arrays, too.
    below = [entry for entry in zoo.iterdir() if entry.is_dir()]
    is_checkpoints = any((entry / name).is_file() for entry in below for name in ("config.json", "modules.json"))
    return not is_checkpoints and any(_has_arrays(entry) for entry in below)


def _has_arrays(folder: Path) -> bool:
    return any(_is_array(entry) and entry.suffix.lower() not in (".txt", ".csv", ".tsv") for entry in folder.iterdir())


def draft_activations(zoo: Path, home: Path, data: Sequence[Path] = ()) -> Draft:
    """Return a catalog of files of activations.

    Parameters
    ----------
    zoo
        A glob, a file or a folder.
    home
        The folder that the catalog will lie in.
    data
        A file of ids; by default one that lies near, or an array beside the activations.

    Raises
    ------
    DataError
        ``missing_source`` if there is nothing to read; ``bad_name`` for a path with braces.
    """
    pattern = _usual_pattern(zoo)
    if "{" in pattern or "}" in pattern:
        problem = f"{pattern}: got a path with braces, which stand for names in a catalog, expected one without"
        raise DataError("bad_name", f"{problem}. Rename the files.")
    files = _files(pattern)
    if not files:
        raise DataError("missing_source", f"{pattern}: got no file that matches, expected activations. Check the path.")
    return _Drafting(pattern, home, files, list(data)).draft()


def _usual_pattern(zoo: Path) -> str:
    """Return the glob that a file or folder stands for."""
    if has_wildcard(str(zoo)) or zoo.is_file() or _is_array_folder(zoo):
        return zoo.as_posix()
    for depth in ("*", "*/*"):
        suffixes = Counter(entry.suffix for entry in zoo.glob(depth) if _is_array(entry) and not _is_beside(entry))
        if suffixes:
            return f"{zoo.as_posix()}/{depth}{suffixes.most_common(1)[0][0]}"
    return f"{zoo.as_posix()}/*"


def _is_array_folder(path: Path) -> bool:
    return path.is_dir() and any((path / marker).is_file() for marker in FOLDER_FORMATS)


def _is_array(path: Path) -> bool:
    is_hidden = path.name.startswith((".", "_"))
    return not is_hidden and ((path.is_file() and path.suffix.lower() in FORMATS) or _is_array_folder(path))


def _is_beside(path: Path) -> bool:
    """Return whether a file is called as files of ids or labels are."""
    return bool(_IDS.fullmatch(path.stem) or _LABELS.fullmatch(path.stem)) or path.suffix.lower() == ".txt"


def _files(pattern: str) -> list[Path]:
    path = Path(pattern)
    if not has_wildcard(pattern):
        return [path] if path.exists() else []
    parts = path.parts
    first = next(index for index, part in enumerate(parts) if has_wildcard(part))
    base = Path(*parts[:first]) if first else Path()
    found = (entry for _, entry in zip(range(_MOST_FILES), base.glob("/".join(parts[first:])), strict=False))
    return sorted((entry for entry in found if _is_array(entry)), key=lambda entry: natural_order(str(entry)))


class _Drafting:
    """The facts about the files that are known so far."""

    def __init__(self, pattern: str, home: Path, files: list[Path], data: list[Path]) -> None:
        self.pattern, self.home, self.remarks = pattern, home, list[str]()
        self.beside = [*data, *(file for file in files if _is_beside(file))]
        self.found = [_look(file) for file in files if file not in self.beside]
        if not any(one.arrays for one in self.found):
            reasons = [reason for one in self.found for reason in one.broken.values()]
            problem = f"{pattern}: got no file with arrays that can be read, expected activations"
            raise DataError("missing_source", f"{problem}. {reasons[0] if reasons else 'Check the path'}")

    def draft(self) -> Draft:
        first = next(one for one in self.found if one.arrays)
        layers = self._layers(first)
        columns = _columns(first) if not layers else []
        n_rows = self._n_rows(first, layers, columns)
        settings: dict[str, Any] = {"path": self._path(), "dataset": _DATASET}
        if columns:
            settings["columns"] = columns
        settings |= self._pooling(first, layers)
        ids, own_ids = self._ids(first, n_rows)
        if own_ids is not None:
            settings["ids"] = own_ids
        dataset: dict[str, Any] = {"ids": ids}
        if (labels := self._labels(first, n_rows)) is not None:
            dataset["labels"] = labels
        lines = [
            f"# Written by lfm-atlas init --from {self.pattern}. Look it through; then lfm-atlas validate --deep.",
            "version: 1",
            "datasets:",
            f"  # {n_rows} points{self._about_ids(ids)}",
            f"  {_DATASET}: {as_flow(dataset)}",
            *self._model_lines(settings, first, layers, columns),
            *self._other_rows(n_rows, has_own_ids=own_ids is not None),
            *self._broken_lines(),
        ]
        return Draft("\n".join(lines) + "\n", tuple(self.remarks))

    def _path(self) -> str:
        """Return the pattern as the catalog says it: what differs between files is the model, then the layer."""
        if not has_wildcard(self.pattern):
            return relative(Path(self.pattern), self.home)
        fields = iter(["{model}", "{layer}"])
        parts = []
        for part in PurePath(relative(Path(self.pattern), self.home)).parts:
            parts.append(re.sub(r"[*?]+|\[[^]]*\]", lambda _: next(fields, "*"), part) if has_wildcard(part) else part)
        return "/".join(parts)

    @property
    def _has_layers_in_path(self) -> bool:
        return "{layer}" in self._path()

    def _layers(self, one: _Found) -> dict[str | None, StoredArray]:
        """Return the arrays of a file that are layers."""
        return {
            key: array
            for key, array in one.arrays.items()
            if len(array.shape) > 1
            and array.dtype.kind in "fiubV"
            and not (key and (_MASK.fullmatch(key) or _NO_LAYERS.search(key)) and array.dtype.kind in "iub")
        }

    def _n_rows(self, first: _Found, layers: Mapping[str | None, StoredArray], columns: Sequence[str]) -> int:
        of_columns = [array for key, array in first.arrays.items() if columns and fnmatchcase(str(key), columns[0])]
        arrays = list(layers.values()) or of_columns
        if not arrays:
            listed = ", ".join(f"{key} {array.shape}" for key, array in list(first.arrays.items())[:_MOST_LISTED])
            problem = f"{first.path}: got no array of (points, features), but {listed}"
            raise DataError("missing_source", f"{problem}, expected activations. Name other files.")
        return Counter(array.shape[0] for array in arrays).most_common(1)[0][0]

    def _pooling(self, first: _Found, layers: Mapping[str | None, StoredArray]) -> dict[str, Any]:
        settings: dict[str, Any] = {}
        if any(str(array.dtype) == "|V2" for array in layers.values()):
            settings["read_as"] = "bfloat16"
            self.remarks.append("got values of 16 bits without a type: they are read as bfloat16")
        ranks = Counter(len(array.shape) for array in layers.values())
        if ranks[3]:
            settings["pool"] = "mean"
            self.remarks.append("got layers of (points, tokens, features): pool: mean; or cls, last, max, flatten")
            tokens = next(array.shape[1] for array in layers.values() if len(array.shape) == 3)
            masks = [
                key
                for key, array in first.arrays.items()
                if key and _MASK.fullmatch(key) and array.shape[1:] == (tokens,)
            ]
            if masks:
                settings["mask"] = {"path": self._path(), "key": masks[0]}
        if ranks[4]:
            shape, is_sure = _map_shape([array.shape[1:] for array in layers.values() if len(array.shape) == 4])
            settings |= {"pool": "mean", "shape": ["ntd", shape] if ranks[3] else shape}
            if not is_sure:
                self.remarks.append(
                    f"got maps whose channels could be first or last: shape: {shape} is a guess, check it"
                )
        return settings

    def _ids(self, first: _Found, n_rows: int) -> tuple[Any, dict[str, Any] | None]:
        """Return the ids of the dataset, and those of each model where its file holds them."""
        for key, array in first.arrays.items():
            if (
                key is not None
                and array.shape == (n_rows,)
                and _IDS.fullmatch(key.rpartition("/")[2])
                and _are_ids(array)
            ):
                own = {"path": relative(first.path, self.home), "key": key}
                return own, {"path": self._path(), "key": key} if has_wildcard(self.pattern) else dict(own)
        for path in self._near(_IDS):
            if (settings := self._beside(path, n_rows, _IDS, _are_ids)) is not None:
                return settings, None
        self.remarks.append(
            f"got no ids of the {n_rows} rows: ids: positional takes the rows of all files for the same points in the "
            "same order. Name ids if there are any"
        )
        return "positional", None

    def _labels(self, first: _Found, n_rows: int) -> dict[str, Any] | None:
        for key, array in first.arrays.items():
            if key is not None and array.shape == (n_rows,) and _LABELS.fullmatch(key.rpartition("/")[2]):
                return {"path": relative(first.path, self.home), "key": key}
        found = (self._beside(path, n_rows, _LABELS, lambda array: True) for path in self._near(_LABELS))
        return next((settings for settings in found if settings is not None), None)

    def _near(self, names: re.Pattern[str]) -> Iterator[Path]:
        """Yield the files beside the activations, and one folder above, that are called like ids or labels."""
        yield from (path for path in self.beside if path.is_file())
        for folder in dict.fromkeys([self.found[0].path.parent, self.found[0].path.parent.parent, self.home]):
            if folder.is_dir():
                entries = [entry for _, entry in zip(range(_MOST_FILES), folder.iterdir(), strict=False)]
                yield from sorted(entry for entry in entries if _is_array(entry) and names.fullmatch(entry.stem))

    def _beside(self, path: Path, n_rows: int, names: re.Pattern[str], fits: Any) -> dict[str, Any] | None:
        """Return how the catalog names the one array of a file that has an entry a row."""
        one = _look(path)
        keys = [
            key
            for key, array in one.arrays.items()
            if array.shape == (n_rows,) and (key is None or names.fullmatch(key.rpartition("/")[2])) and fits(array)
        ]
        if not keys:
            return None
        return {"path": relative(path, self.home), **({} if keys[0] is None else {"key": keys[0]})}

    def _about_ids(self, ids: Any) -> str:
        return "; no ids were found: rows are joined by their numbers" if ids == "positional" else ""

    def _model_lines(
        self,
        settings: Mapping[str, Any],
        first: _Found,
        layers: Mapping[str | None, StoredArray],
        columns: Sequence[str],
    ) -> Iterator[str]:
        names = list(dict.fromkeys(self._name(one.path) for one in self.found))
        if self._has_layers_in_path:
            own = [one for one in self.found if self._name(one.path) == names[0]]
            arrays = [f"{one.path.stem} {_shape(array)}" for one in own for array in one.arrays.values()]
        else:
            arrays = [f"{key or first.path.stem} {_shape(array)}" for key, array in layers.items()]
        if columns:
            n_columns = sum(fnmatchcase(str(key), columns[0]) for key in first.arrays)
            arrays = [f"{n_columns} columns, a feature each"]
        listed = ", ".join(arrays[:_MOST_LISTED]) + (" ..." if len(arrays) > _MOST_LISTED else "")
        models = ", ".join(names[:_MOST_LISTED]) + (" ..." if len(names) > _MOST_LISTED else "")
        if has_wildcard(self.pattern):
            yield "discover:"
            yield f"  # {len(names)}: {models}"
            yield f"  # layers of the first: {listed}"
            yield f"  arrived: {as_flow({'activations': dict(settings)})}"
        else:
            yield "models:"
            yield f"  # layers: {listed}"
            yield f"  {_model_name(names[0])}: {as_flow({'activations': dict(settings)})}"
        for name in names:
            try:
                check_name(name)
            except ValueError as error:
                self.remarks.append(f"{error}; the catalog passes it over")

    def _name(self, path: Path) -> str:
        """Return the value of ``{model}`` in the path of a file."""
        parts = PurePath(self.pattern).parts
        level = next((index for index, part in enumerate(parts) if has_wildcard(part)), len(parts) - 1)
        entry = path.parts[level]
        form = "".join(
            "(.+?)" if index % 2 else re.escape(text)
            for index, text in enumerate(re.split(r"([*?]+|\[[^]]*\])", parts[level]))
        )
        match = re.fullmatch(form, entry, re.DOTALL)
        return match[1] if match and match.groups() else path.stem

    def _other_rows(self, n_rows: int, *, has_own_ids: bool) -> Iterator[str]:
        if has_own_ids:
            return
        for one in self.found[:_MOST_FILES]:
            arrays = self._layers(one)
            others = {array.shape[0] for array in arrays.values()} - {n_rows}
            if others:
                what = (
                    f"{relative(one.path, self.home)} has {min(others)} rows, others {n_rows}. Give it ids of its own"
                )
                self.remarks.append(f"got files of several lengths: {what}")
                yield f"# {what}"
                return

    def _broken_lines(self) -> Iterator[str]:
        broken = [reason for one in self.found for reason in one.broken.values()]
        if broken:
            self.remarks.append(f"got {len(broken)} arrays that cannot be read: the end of {CATALOG} says why")
            yield "# These cannot be read; validate tells of them, too:"
            yield from (f"#   {reason}" for reason in broken[:_MOST_LISTED])


def _look(path: Path) -> _Found:
    """Return the arrays of a file, headers read."""
    name = path.name
    arrays: dict[str | None, StoredArray] = {}
    broken: dict[str | None, str] = {}
    try:
        keys: Sequence[str | None] = find_format(path, name).keys(path, name) or (None,)
    except (DataError, OSError, ValueError) as error:
        return _Found(path, {}, {None: str(error)})
    for key in keys:
        try:
            arrays[key] = open_array(path, name, key)
        except DataError as error:
            if "|V2" in str(error) or "bfloat16" in str(error):
                arrays[key] = open_array(path, name, key, Reading(read_as="bfloat16"))
            elif "a single value" not in str(error):
                broken[key] = str(error)
    return _Found(path, arrays, broken)


def _are_ids(array: StoredArray) -> bool:
    try:
        unique_ids(array.load(), array.name)
    except (DataError, ValueError):
        return False
    return True


def _columns(one: _Found) -> list[str]:
    """Return globs of the columns that are numbers, a feature each: those whose names differ by a number."""
    groups: Counter[str] = Counter()
    for key, array in one.arrays.items():
        match = _DIGITS_BEHIND.fullmatch(key or "")
        if match and len(array.shape) == 1 and array.dtype.kind in "fiubU":
            groups[match[1]] += 1
    if not groups:
        return []
    start, count = groups.most_common(1)[0]
    return [f"{start}[0-9]*"] if count >= _FEWEST_COLUMNS else []


def _map_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[str, bool]:
    """Return where the channels of maps likely are, and whether all maps say so: sides of pixels are mostly equal."""
    first = sum(rows == columns != channels for channels, rows, columns in shapes)
    last = sum(rows == columns != channels for rows, columns, channels in shapes)
    return ("nchw", last == 0 and first > 0) if first >= last else ("nhwc", first == 0)


def _shape(array: StoredArray) -> str:
    return " × ".join(map(str, array.shape[1:])) if len(array.shape) > 1 else "1-D"


def _model_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", name).strip("-.") or "model"
