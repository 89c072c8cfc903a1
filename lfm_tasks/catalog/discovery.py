"""The files and folders that match ``discover``: each becomes a model, or is reported with a reason.

A section of checkpoints takes the folders that its library loads and that read what its dataset holds. A folder that no
section takes is listed: as a refused model if it should have been one, else as a remark.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from lfm_tasks.catalog.checkpoint_folders import FolderKind, NoCheckpoint, folder_kind
from lfm_tasks.catalog.checkpoints import LOADERS, CheckpointModel
from lfm_tasks.catalog.datasets import Dataset
from lfm_tasks.catalog.mlflow_registry import registered_versions
from lfm_tasks.catalog.models import Discovery, Model, OnnxModel, RowSource, TorchModel, model_pattern
from lfm_tasks.catalog.names import check_name, fill_pattern, shorten
from lfm_tasks.config import Settings


@dataclass(frozen=True)
class RefusedModel:
    """A file or folder that a pattern of ``discover`` fits and that cannot be a model; ``name`` is quoted."""

    discovery: str
    dataset: str
    name: str
    message: str


@dataclass(frozen=True)
class DiscoveredModels:
    """The models that fit the patterns of ``discover``: all by name, and which names fit which pattern.

    ``refused`` cannot be models, although something should be; ``unclaimed`` holds a sentence for each folder that no
    section is for.
    """

    models: dict[str, Model]
    names: dict[str, tuple[str, ...]]
    refused: tuple[RefusedModel, ...]
    unclaimed: tuple[str, ...] = ()


def discover_models(
    discoveries: Mapping[str, Discovery],
    declared: Mapping[str, Model],
    datasets: Mapping[str, Dataset],
    root: Path,
    homes: Sequence[Path] = (),
) -> DiscoveredModels:
    """Return the models in the files that patterns fit, in the order of names; one bad file never stops the others.

    Parameters
    ----------
    discoveries
        The section ``discover``.
    declared
        The section ``models``: names that are taken, and folders that need no discovery.
    datasets
        The section ``datasets``: a section of checkpoints takes the folders that read what its dataset holds.
    root
        The folder of the catalog: patterns are relative to it.
    homes
        Further folders that links may lead into.
    """
    search = _Search(discoveries, _declared_folders(declared, root), datasets, root, homes)
    candidates: dict[str, list[_Candidate]] = {}
    refused: list[RefusedModel] = []
    absent: list[str] = []
    for section, discovery in discoveries.items():
        try:
            candidates[section] = list(search.candidates(section))
        except ValueError as error:  # a registry that cannot be read
            candidates[section] = []
            refused.append(RefusedModel(section, discovery.datasets[0], section, str(error)))
    takers = _takers(candidates)
    models: dict[str, Model] = {}
    names: dict[str, tuple[str, ...]] = {}
    taken = {name.casefold(): f"the declared model {name!r}" for name in declared}
    for section, discovery in discoveries.items():
        accepted = []
        own = [found for found in candidates[section] if not found.declined and takers[found.path] == section]
        twins = _twins(found.name for found in own)
        for found in own:
            try:
                _check_twins(found, twins)
                _check_discovered(found, taken, (root, *homes))
            except (ValueError, OSError) as error:
                refused.append(RefusedModel(section, discovery.datasets[0], shorten(found.name), str(error)))
                continue
            taken[found.name.casefold()] = f"the model {found.name!r} of discover.{section}"
            accepted.append(found.name)
            models[found.name] = _model(discovery, found)
            absent += [f"discover.{section}: {found.name} is not on the dataset {one}" for one in found.absent]
        names[section] = tuple(accepted)
    rivals, unclaimed = _told(discoveries, candidates, takers)
    return DiscoveredModels(models, names, (*refused, *rivals), (*unclaimed, *absent))


@dataclass(frozen=True)
class _Candidate:
    """The value of ``{model}`` in a path, and why the section leaves it to others; "" if it takes it.

    ``rank`` is 0 for the section whose library the folder was written by. ``is_fault``: it should have been a model.
    ``version``: its number in an MLflow registry, whose folder ``path`` then is; ``problem``: why it cannot be taken.
    ``sources``: the indices of the section's sources that it fits, ``paths`` what lies there; ``absent`` says on which
    datasets it is not, and why.
    """

    name: str
    path: Path
    declined: str = ""
    is_fault: bool = False
    rank: int = 0
    kind: FolderKind | None = None
    version: int | None = None
    problem: str = ""
    sources: tuple[int, ...] = (0,)
    paths: tuple[Path, ...] = ()
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Search:
    """The sections and what they share: each folder is listed and looked into once."""

    discoveries: Mapping[str, Discovery]
    declared_folders: frozenset[str]
    datasets: Mapping[str, Dataset]
    root: Path
    homes: Sequence[Path] = ()
    listings: dict[Path, list[str]] = field(default_factory=dict)
    kinds: dict[tuple[Path, Path | None], FolderKind | NoCheckpoint] = field(default_factory=dict)

    def candidates(self, section: str) -> Iterator[_Candidate]:
        """Yield the files that fit the patterns of a section, in the order of names; hidden files are skipped."""
        discovery = self.discoveries[section]
        by_name: dict[str, list[_Candidate]] = {}
        for index, source in enumerate(discovery.sources):
            for found in self._of_source(discovery, source):
                by_name.setdefault(found.name, []).append(replace(found, sources=(index,)))
        for _, parts in by_name.items() if len(discovery.sources) == 1 else sorted(by_name.items()):
            yield _joined(discovery, parts)

    def _of_source(self, discovery: Discovery, source: RowSource) -> Iterator[_Candidate]:
        """Yield the files that fit the pattern of one source of a section, in the order of names."""
        parts = PurePath(model_pattern(source).replace("{dataset}", source.dataset)).parts
        if discovery.mlflow is not None:
            yield from self._registered(discovery, source, parts[1:])
            return
        level = next(index for index, part in enumerate(parts) if "{model}" in part)
        first, *others = [re.escape(text) for text in parts[level].split("{model}")]
        form = re.compile(first + "(?P<model>.+)" + "(?P=model)".join(others), re.DOTALL)
        folder = self.root.joinpath(*parts[:level])
        for entry in self._listing(folder):
            match = None if entry.startswith(".") else form.fullmatch(entry)
            if match is None:
                continue
            below = [part.replace("{model}", match["model"]) for part in parts[level + 1 :]]
            if (found := self._found(discovery, source, match["model"], folder / entry, below)) is not None:
                yield found

    def _registered(self, discovery: Discovery, source: RowSource, below: Sequence[str]) -> Iterator[_Candidate]:
        """Yield the versions of a registry that a section chooses."""
        for one in registered_versions(discovery.mlflow, self.root, self.homes) if discovery.mlflow is not None else ():
            if one.problem:
                yield _Candidate(one.name, one.folder, version=one.version, problem=one.problem)
            elif (found := self._found(discovery, source, one.name, one.folder, list(below))) is not None:
                yield replace(found, version=one.version)

    def _found(
        self, discovery: Discovery, source: RowSource, name: str, path: Path, below: list[str]
    ) -> _Candidate | None:
        """Return the candidate model of a file or folder in a section; None if the section skips it."""
        if isinstance(source, CheckpointModel):
            return self._checkpoint(discovery.kind, source, name, path, below)
        fits = _exists(path, below) or _is_folder_of_model(source, path.joinpath(*below))
        return _Candidate(name, path) if fits else None

    def _listing(self, folder: Path) -> list[str]:
        if folder not in self.listings:
            try:
                self.listings[folder] = sorted(os.listdir(folder))
            except (OSError, ValueError):
                self.listings[folder] = []
        return self.listings[folder]

    def _checkpoint(
        self, loader: str, settings: CheckpointModel, name: str, path: Path, below: list[str]
    ) -> _Candidate | None:
        """Return a folder with what the section makes of it; None for a file, and for what a declared model names."""
        folder = path.joinpath(*below)
        if not path.is_dir():
            leads_nowhere = path.is_symlink() and not path.exists()
            return _Candidate(name, path, "it is a link that leads nowhere", is_fault=True) if leads_nowhere else None
        if str(folder) in self.declared_folders:
            return None
        if not folder.is_dir():
            return _Candidate(name, path, f"it holds no folder {'/'.join(below)}")
        kind = self._kind(folder, self._base(settings, name))
        if isinstance(kind, NoCheckpoint):
            return _Candidate(name, path, kind.reason, kind.looks_like_model)
        return self._offered(_Candidate(name, path, kind=kind), kind, loader, settings)

    def _offered(self, found: _Candidate, kind: FolderKind, loader: str, settings: CheckpointModel) -> _Candidate:
        if loader not in kind.loaders:
            return _Candidate(found.name, found.path, f"it is a checkpoint of {kind.loaders[0]}")
        held = self.datasets[settings.dataset].kind if settings.dataset in self.datasets else "nothing"
        # Facts that its files do not show, and choices among its networks, are reported once it is opened.
        if held in ("texts", "images") and kind.reads and held not in kind.reads and not kind.has_towers:
            reason = f"it reads {' and '.join(kind.reads)}, and the dataset {settings.dataset} holds {held}"
            return _Candidate(found.name, found.path, reason)
        return _Candidate(found.name, found.path, rank=kind.loaders.index(loader), kind=kind)

    def _kind(self, folder: Path, base: Path | None) -> FolderKind | NoCheckpoint:
        if (folder, base) not in self.kinds:
            self.kinds[folder, base] = folder_kind(folder, base)
        return self.kinds[folder, base]

    def _base(self, settings: CheckpointModel, name: str) -> Path | None:
        if settings.base is None:
            return None
        try:
            return self.root / fill_pattern(settings.base, model=name, dataset=settings.dataset)
        except ValueError:  # a name that cannot be one: refused below
            return None


def _declared_folders(declared: Mapping[str, Model], root: Path) -> frozenset[str]:
    """Return the folders of checkpoints that declared models name: they need no discovery."""
    named = ((name, source) for name, model in declared.items() for source in model.sources)
    return frozenset(
        str(root / fill_pattern(source.path, model=name, dataset=source.dataset))
        for name, source in named
        if isinstance(source, CheckpointModel)
    )


def _joined(discovery: Discovery, parts: Sequence[_Candidate]) -> _Candidate:
    """Return the model of one name in a section, on all datasets whose source takes it."""
    taken = [found for found in parts if not found.declined and not found.problem] or list(parts[:1])
    sources = [index for found in taken for index in found.sources]
    declined = {found.sources[0]: f": {found.declined}" for found in parts if found.declined}
    absent = tuple(
        f"{dataset}{declined.get(index, '')}"
        for index, dataset in enumerate(discovery.datasets)
        if index not in sources
    )
    return replace(taken[0], sources=tuple(sources), paths=tuple(found.path for found in taken), absent=absent)


def _takers(candidates: Mapping[str, list[_Candidate]]) -> dict[Path, str]:
    """Return the section that takes each path: the one of its own library, of several the first."""
    best: dict[Path, tuple[int, str]] = {}
    for section, of_section in candidates.items():
        for found in of_section:
            if not found.declined and (found.path not in best or found.rank < best[found.path][0]):
                best[found.path] = (found.rank, section)
    return {path: section for path, (_, section) in best.items()}


def _told(
    discoveries: Mapping[str, Discovery], candidates: Mapping[str, list[_Candidate]], takers: Mapping[Path, str]
) -> tuple[tuple[RefusedModel, ...], tuple[str, ...]]:
    """Return the folders that two sections take, or that should be models, and a sentence for each other one."""
    refused: list[RefusedModel] = []
    declined: dict[Path, list[tuple[str, _Candidate]]] = {}
    for section, of_section in candidates.items():
        for found in of_section:
            taker = takers.get(found.path)
            if taker is None:
                declined.setdefault(found.path, []).append((section, found))
            elif taker != section and not found.declined and _is_rival(found):
                problem = f"got the folder {found.path.name!r}, which discover.{taker} takes too, expected one section"
                advice = "Give the sections different folders, or declare the model under models by another name"
                dataset = discoveries[section].datasets[0]
                refused.append(RefusedModel(section, dataset, shorten(found.name), f"{problem}. {advice}"))
    unclaimed = []
    for path, of_path in declined.items():
        section, first = of_path[0]
        reasons = _reasons([(one, found.declined) for one, found in of_path])
        if any(found.is_fault for _, found in of_path):
            message = f"got the folder {path.name!r}, which no section of discover takes: {reasons}"
            advice = "Fix it, or move it out of the folder"
            refused.append(
                RefusedModel(section, discoveries[section].datasets[0], shorten(first.name), f"{message}. {advice}")
            )
        else:
            unclaimed.append(f"{shorten(first.name)}: no section of discover takes this folder: {reasons}")
    return tuple(refused), tuple(unclaimed)


def _is_rival(found: _Candidate) -> bool:
    """Return whether two sections that take a folder are a mistake: not where its networks have to be distinguished."""
    return found.kind is None or (found.rank == 0 and not found.kind.has_towers and bool(found.kind.reads))


def _reasons(declined: list[tuple[str, str]]) -> str:
    """Return the reasons of all sections, each once."""
    by_reason: dict[str, list[str]] = {}
    for section, reason in declined:
        by_reason.setdefault(reason, []).append(f"discover.{section}")
    if len(by_reason) == 1:
        return next(iter(by_reason))
    return "; ".join(f"{reason} ({', '.join(sections)})" for reason, sections in by_reason.items())


def _model(discovery: Discovery, found: _Candidate) -> Model:
    settings: dict[str, Any] = {key: getattr(discovery, key) for key in Model.model_fields}
    if found.version is not None:
        settings = {key: _placed(value, str(found.path)) for key, value in settings.items()}
        settings["meta"] = {"mlflow_version": found.version, **discovery.meta}
    model = Model(**settings)
    sources = tuple(model.sources[index] for index in found.sources)
    if discovery.kind in LOADERS and found.kind is not None and not found.kind.has_towers:
        # The section says which of two networks; this folder holds one.
        sources = tuple(source.model_copy(update={"tower": None}) for source in sources)
    return model.with_sources(sources)


def _placed(value: Any, folder: str) -> Any:
    """Return settings in whose texts ``{model}`` is the folder of a registered version."""
    if isinstance(value, str):
        return value.replace("{model}", folder)
    if isinstance(value, Settings):
        return value.model_copy(update={key: _placed(getattr(value, key), folder) for key in type(value).model_fields})
    if isinstance(value, dict):
        return {key: _placed(one, folder) for key, one in value.items()}
    return type(value)(_placed(one, folder) for one in value) if isinstance(value, list | tuple) else value


def _exists(path: Path, below: list[str]) -> bool:
    """Return whether the rest of a pattern exists, as far as it does not depend on the layer."""
    fixed = next((index for index, part in enumerate(below) if "{layer}" in part), len(below))
    whole = path.joinpath(*below[:fixed])
    # A dangling link is reported as a refused model, not passed over.
    return path.is_symlink() or (whole.is_dir() if fixed < len(below) else whole.is_file())


def _is_folder_of_model(source: RowSource, folder: Path) -> bool:
    """Return whether a folder holds an ONNX model, as exporters and the hub lay it out, or is a factory's argument."""
    if isinstance(source, OnnxModel):
        return any((folder / name).is_file() for name in ("model.onnx", "onnx/model.onnx"))
    return isinstance(source, TorchModel) and source.weights is None and folder.is_dir()


def _twins(names: Iterable[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the names of one section that differ by upper and lower case only, by what they have in common."""
    alike: dict[str, dict[str, None]] = {}
    for name in names:
        alike.setdefault(name.casefold(), {})[name] = None
    return {common: tuple(sorted(of_common)) for common, of_common in alike.items() if len(of_common) > 1}


def _check_twins(found: _Candidate, twins: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ValueError for a name that another file has but for case: nothing tells which of them was there first."""
    alike = twins.get(found.name.casefold(), ())
    if alike:
        listed = " and ".join(map(repr, alike))
        problem = f"got the names {listed}, which differ by upper and lower case only"
        raise ValueError(f"{problem}, expected names that differ on every file system. Rename one of them")


def _check_discovered(found: _Candidate, taken: Mapping[str, str], homes: Sequence[Path]) -> None:
    what = "folder" if found.kind is not None else "file"
    if found.problem:
        raise ValueError(found.problem)
    try:
        check_name(found.name)
    except ValueError as error:
        raise ValueError(f"{error}. Rename the {what}") from error
    if found.name.casefold() in taken:
        raise ValueError(f"got the name {found.name!r}, which {taken[found.name.casefold()]} has. Rename the {what}")
    for path in found.paths or (found.path,):
        if not path.is_symlink():
            continue
        real, folder = path.resolve(), path.parent.resolve()
        if not any(real.is_relative_to(home) for home in (folder, *(one.resolve() for one in homes))):
            where = "its folder and out of the catalog's"
            advice = f"Copy the {what} there, or allow the folder that it leads to by links: [...]"
            raise ValueError(f"got a link that leads out of {where}. {advice}")
