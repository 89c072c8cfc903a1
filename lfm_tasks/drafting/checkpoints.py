"""A first catalog for a folder of checkpoints."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lfm_tasks.catalog.checkpoint_folders import NoCheckpoint, folder_kind
from lfm_tasks.catalog.datasets import Images, Texts
from lfm_tasks.catalog.facts import folder_facts
from lfm_tasks.catalog.names import check_name
from lfm_tasks.drafting.draft import CATALOG, Draft, as_flow, relative
from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.folder import Checkpoint, inspect_checkpoint
from lfm_tasks.sources.checkpoints.prepared_inputs import towers
from lfm_tasks.sources.files.arrow_files import arrow_keys, parquet_keys, saved_dataset_keys
from lfm_tasks.sources.files.tables import TABLES, read_table
from lfm_tasks.sources.raw_inputs import read_texts

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
# Names that columns usually have, the likeliest first.
_TEXT_COLUMNS = ("text", "sentence", "content", "document", "body", "review", "question", "title")
_ID_COLUMNS = ("id", "_id", "uid", "uuid", "guid", "idx", "doc_id", "key", "name")
_LABEL_COLUMNS = ("label", "labels", "class", "category", "topic", "target")
_NO_DATA = re.compile(r"readme|licen[cs]e|requirements|changelog|notice|vocab|merges", re.IGNORECASE)
_MAX_ENTRIES = 10_000
_MAX_TOKENS = 128
_SECTIONS = {
    ("transformers", "texts"): "language",
    ("sentence_transformers", "texts"): "sentences",
    ("transformers", "images"): "vision",
    ("timm", "images"): "timm",
}
_DATASETS = {"texts": "docs", "images": "photos"}


@dataclass(frozen=True)
class _Data:
    """Texts or images that were found: where, what the catalog says of them, and how many rows there are."""

    path: Path
    settings: str
    n_rows: int
    remark: str = ""


@dataclass(frozen=True)
class _Member:
    """A model of the zoo: its folder, its name, the network of several that runs."""

    folder: Path
    name: str
    checkpoint: Checkpoint


def draft_checkpoints(zoo: Path, home: Path, data: Sequence[Path] = ()) -> Draft:
    """Return a catalog of the checkpoints in ``zoo``.

    Parameters
    ----------
    zoo
        A folder with a folder for each checkpoint.
    home
        The folder that the catalog will lie in: its paths are relative to it.
    data
        Files or folders of texts and images; by default what lies in ``home``, beside the zoo and one folder below.

    Raises
    ------
    DataError
        ``missing_source`` if ``zoo`` holds no checkpoint; ``bad_name`` if a catalog cannot name it.
    """
    if "{" in relative(zoo, home) or "}" in relative(zoo, home):
        problem = f"{zoo}: got a path with braces, which stand for names in a catalog, expected one without"
        raise DataError("bad_name", f"{problem}. Rename the folder.")
    members, left_out, others = _look_into(zoo, home)
    places = list(data) or _usual_places(zoo, home)
    needed = {member.checkpoint.reads for member in members}
    found: dict[str, _Data | None] = {
        reads: _find_data(reads, places, home) for reads in ("texts", "images") if reads in needed
    }
    pattern = f"{relative(zoo, home)}/{{model}}"
    lines = [
        f"# Written by lfm-atlas init --from {relative(zoo, home)}. Look it through; then lfm-atlas validate.",
        "version: 1",
        "datasets:",
        *_dataset_lines(found),
        *_discover_lines(members, found, pattern),
        *_model_lines(members, found, home),
        *_unusable_lines(left_out, relative(zoo, home)),
        *_license_lines(members),
    ]
    unusable = [f"got {len(left_out)} unusable folders: the end of {CATALOG} says why"] if left_out else []
    return Draft("\n".join(lines) + "\n", (*_missing_data(found), *unusable, *others))


def _look_into(zoo: Path, home: Path) -> tuple[list[_Member], list[str], list[str]]:
    """Return the models in the folders of a zoo, why other checkpoints are none, and what else lies there."""
    folders = sorted(entry for entry in _entries(zoo) if entry.is_dir())
    members: list[_Member] = []
    left_out: list[str] = []
    others: list[str] = []
    for folder in folders:
        kind = folder_kind(folder)
        if isinstance(kind, NoCheckpoint):
            (left_out if kind.looks_like_model else others).append(f"{folder.name}: {kind.reason}")
            continue
        try:
            check_name(folder.name)
            found = _networks(folder, home, has_towers=kind.has_towers)
        except ValueError as error:
            left_out.append(str(error) if isinstance(error, DataError) else f"{folder.name}: {error}")
            continue
        members += found
    if not members:
        problem = f"{zoo}: got no folder with a checkpoint, expected a folder of each model (config.json, weights)"
        reasons = "; ".join((*left_out, *others)[:3])
        raise DataError("missing_source", f"{problem}. Check the path{f'. Found {reasons}' if reasons else ''}")
    return members, left_out, others


def _networks(folder: Path, home: Path, *, has_towers: bool) -> list[_Member]:
    """Return the networks of a checkpoint: one, or those of several that can be run; DataError if there is none."""
    if not has_towers:
        return [_Member(folder, folder.name, inspect_checkpoint(folder, root=home))]
    try:
        return [_Member(folder, folder.name, inspect_checkpoint(folder, root=home))]
    except DataError as error:
        if error.reason != "no_tower":
            raise
        refused = error
    members = []
    for tower in towers(json.loads((folder / "config.json").read_text(encoding="utf-8"))):
        try:
            checkpoint = inspect_checkpoint(folder, root=home, tower=tower)
        except DataError:
            continue
        members.append(_Member(folder, f"{folder.name}-{tower}", checkpoint))
    if not members:
        raise refused
    return members


def _usual_places(zoo: Path, home: Path) -> list[Path]:
    """Return the files in the catalog's folder, beside the zoo, and one folder below, without the zoo itself."""
    places: list[Path] = []
    for folder in dict.fromkeys((home.resolve(), zoo.resolve().parent)):
        for entry in sorted(_entries(folder)):
            if entry.resolve() == zoo.resolve():
                continue
            places.append(entry)
            if entry.is_dir():
                places += sorted(below for below in _entries(entry))
    return list(dict.fromkeys(places))


def _entries(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MAX_ENTRIES), entries, strict=False)]
    except OSError:
        return
    yield from (folder / name for name in names if not name.startswith("."))


def _find_data(reads: str, places: Sequence[Path], home: Path) -> _Data | None:
    """Return the first texts or images among some files and folders, with a remark on others."""
    look = _texts if reads == "texts" else _images
    found = [data for place in places if (data := look(place, home)) is not None]
    others = [relative(one.path, home) for one in found[1:] if not one.path.is_relative_to(found[0].path)]
    if not others:
        return found[0] if found else None
    remarks = [found[0].remark, f"others are there: {', '.join(others[:3])}{' ...' if len(others) > 3 else ''}"]
    return replace(found[0], remark="; ".join(filter(None, remarks)))


def _texts(path: Path, home: Path) -> _Data | None:
    """Return a table of texts, if ``path`` is one; its ids are a column without repetition, else numbers of rows."""
    if _NO_DATA.search(path.name):
        return None
    is_lines = path.suffix == ".txt"
    try:
        columns = () if is_lines else _columns(path)
        usual = _pick(_TEXT_COLUMNS, columns)
        text = usual or _longest(path, columns)
        if text is None and not is_lines:
            return None
        chosen = {"text": text, "id": _pick(_ID_COLUMNS, columns), "label": _pick(_LABEL_COLUMNS, columns)}
        settings = {"path": relative(path, home), **_given(chosen)}
        remarks = [] if usual or is_lines else [f"the columns are {', '.join(columns)}: which is the text?"]
        n_rows = _count(settings, home) if is_lines or "id" in settings else None
        if n_rows is None:
            settings["id"] = "positional"
            remarks.append("no column holds ids: they are the numbers of the rows")
            n_rows = _count(settings, home)
    except (DataError, OSError, ValueError):
        return None
    return None if n_rows is None else _Data(path, as_flow({"texts": settings}), n_rows, "; ".join(remarks))


def _count(settings: Mapping[str, Any], home: Path) -> int | None:
    """Return how many texts a dataset holds; None if its column of ids holds none; DataError if it is unusable."""
    try:
        return len(read_texts("docs", Texts(**settings), home).ids)
    except DataError as error:
        if error.reason != "bad_ids":
            raise
        return None


def _columns(path: Path) -> tuple[str, ...]:
    """Return the columns of a table; DataError or OSError if it is none."""
    name = path.name
    if path.suffix == ".parquet":
        return parquet_keys(path, name)
    if path.suffix in (".arrow", ".feather"):
        return arrow_keys(path, name)
    if path.is_dir():
        return saved_dataset_keys(path, name)
    if path.suffix not in TABLES:
        raise DataError("missing_source", f"{name}: no table")
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline(1 << 20)
    if path.suffix in (".csv", ".tsv"):
        return tuple(first.rstrip("\r\n").split("\t" if path.suffix == ".tsv" else ","))
    row = json.loads(first) if path.suffix in (".jsonl", ".ndjson") else None
    return tuple(row) if isinstance(row, dict) else ()


def _longest(path: Path, columns: Sequence[str]) -> str | None:
    """Return the column with the longest texts in the first rows, if any holds texts."""
    lengths: dict[str, float] = {}
    for column in columns:
        try:
            values = next(iter(read_table(path, path.name, [column]))).columns[0]
        except (DataError, StopIteration):
            continue
        if values and all(isinstance(value, str) for value in values):
            lengths[column] = sum(map(len, values)) / len(values)
    return max(lengths, key=lambda column: lengths[column], default=None)


def _images(path: Path, home: Path) -> _Data | None:
    """Return a glob of image files, if ``path`` is a folder of them, or of folders of them: their labels."""
    if not path.is_dir():
        return None
    for depth, label in (("*", None), ("*/*", "folder")):
        suffixes = Counter(file.suffix for file in path.glob(depth) if file.suffix.lower() in _IMAGE_SUFFIXES)
        if not suffixes:
            continue
        suffix, n_files = suffixes.most_common(1)[0]
        settings = {"path": f"{relative(path, home)}/{depth}{suffix}", "label": label}
        Images(**_given(settings))
        others = ", ".join(f"{count} {other}" for other, count in sorted(suffixes.items()) if other != suffix)
        return _Data(path, as_flow({"images": _given(settings)}), n_files, f"left out: {others}" if others else "")
    return None


def _pick(usual: Sequence[str], columns: Sequence[str]) -> str | None:
    by_name = {column.casefold(): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def _missing_data(found: Mapping[str, _Data | None]) -> Iterator[str]:
    for reads, data in found.items():
        if data is None:
            yield f"got models that read {reads}, and no {reads}. Name them in {CATALOG}, and remove the # there"


def _dataset_lines(found: Mapping[str, _Data | None]) -> Iterator[str]:
    examples = {
        "texts": "{texts: {path: texts.jsonl, text: text, id: id, label: label}}",
        "images": '{images: {path: "images/*/*.png", label: folder}}',
    }
    for reads, data in found.items():
        if data is None:
            yield f"  # No {reads} were found. Name yours, and remove the # here and below:"
            yield f"  # {_DATASETS[reads]}: {examples[reads]}"
        else:
            yield f"  # {data.n_rows} {reads}{f'; {data.remark}' if data.remark else ''}"
            yield f"  {_DATASETS[reads]}: {data.settings}"


def _discover_lines(members: Sequence[_Member], found: Mapping[str, _Data | None], pattern: str) -> Iterator[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for member in members:
        if member.checkpoint.tower is None:
            groups.setdefault((member.checkpoint.loader, member.checkpoint.reads), []).append(member.name)
    active = {key: found[key[1]] is not None for key in groups}
    if groups:
        yield "discover:" if any(active.values()) else "# discover:"
    for (loader, reads), section in _SECTIONS.items():
        names = groups.get((loader, reads))
        if names is None:
            continue
        settings: dict[str, Any] = {"path": pattern, "dataset": _DATASETS[reads]}
        if reads == "texts":
            settings["max_tokens"] = _MAX_TOKENS
        listed = ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")
        cut = "; longer texts are cut at max_tokens" if reads == "texts" else ""
        yield f"  # {len(names)}: {listed}{cut}"
        yield f"  {'' if active[loader, reads] else '# '}{section}: {as_flow({loader: settings})}"


def _model_lines(members: Sequence[_Member], found: Mapping[str, _Data | None], home: Path) -> Iterator[str]:
    parts = [member for member in members if member.checkpoint.tower is not None]
    if not parts:
        return
    is_active = {member.name: found[member.checkpoint.reads] is not None for member in parts}
    yield "# Folders that hold several networks: each of these is a model of its own."
    yield "models:" if any(is_active.values()) else "# models:"
    for member in parts:
        dataset = _DATASETS[member.checkpoint.reads]
        path, tower = relative(member.folder, home), member.checkpoint.tower
        settings: dict[str, Any] = {"path": path, "dataset": dataset, "tower": tower}
        if member.checkpoint.reads == "texts":
            settings["max_tokens"] = _MAX_TOKENS
        line = f"{member.name}: {as_flow({'transformers': settings})}"
        yield f"  {'' if is_active[member.name] else '# '}{line}"


def _unusable_lines(left_out: Sequence[str], zoo: str) -> Iterator[str]:
    """Yield why folders are no models; patterns name no exceptions, so validate and run tell of them, too."""
    if left_out:
        yield f"# The patterns find these folders, too, and validate refuses them. Fix them or move them out of {zoo}:"
        yield from (f"#   {reason}" for reason in left_out)


def _license_lines(members: Sequence[_Member]) -> Iterator[str]:
    """Yield the lines of a license check that model cards suggest, as a comment to be confirmed."""
    named = {member.folder: folder_facts(member.folder).get("license") for member in members}
    claims: dict[str, list[str]] = {}
    for folder, fact in named.items():
        if fact is not None:
            claims.setdefault(str(fact[0]), []).append(folder.name)
    if not claims:
        yield "# No model card names a license. To audit licenses, name them under meta of each model, and here:"
        yield "# audit: {checks: {license: {allow: [apache-2.0, mit]}}}"
        return
    silent = sum(fact is None for fact in named.values())
    yield f"# Model cards claim these licenses{f' ({silent} none)' if silent else ''}, which nobody has looked at yet:"
    for license_name, names in sorted(claims.items()):
        yield f"#   {license_name}: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    yield "# Keep those that you accept, and remove the # to have audits refuse all others:"
    yield f"# audit: {as_flow({'checks': {'license': {'allow': sorted(claims)}}})}"
