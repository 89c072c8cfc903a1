"""The kind of a checkpoint folder, by its JSON files and the headers of its weights; nothing is loaded or imported.

Which file decides, the first that is there:

| file | the folder is |
|---|---|
| ``adapter_config.json`` | a LoRA adapter on its base: the base decides the rest |
| ``modules.json`` | a sentence-transformers model |
| ``config.json`` with ``architecture`` and no ``model_type`` | a timm model |
| ``config.json`` with ``model_type`` | a transformers model |

What a transformers model reads: texts if a tokenizer is there, images if an image processor is; of two networks (CLIP,
T5) the catalog names one by ``tower``. ``model.safetensors`` goes before ``model.safetensors.index.json``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from lfm_tasks.catalog.checkpoint_folders import VOCABULARIES
from lfm_tasks.catalog.checkpoints import Loader
from lfm_tasks.errors import DataError
from lfm_tasks.sources.checkpoints.agreement import check_adapter, check_agreement
from lfm_tasks.sources.checkpoints.families import StateShape, hidden_states
from lfm_tasks.sources.checkpoints.prepared_inputs import (
    TOKENIZER_FILES,
    Place,
    Reads,
    processor_files,
    running_tower,
    tokenizer_files,
    tower_part,
    towers,
)
from lfm_tasks.sources.checkpoints.requirements import (
    check_architecture,
    check_dtype,
    check_kernels,
    check_quantization,
)
from lfm_tasks.sources.checkpoints.weights import ADAPTER_WEIGHTS, check_inside, tensors_of
from lfm_tasks.sources.files.descriptions import parsed_json, read_json


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that can be run, as far as its files tell.

    ``config`` is that of the folder that holds the network (of an adapter: its base's). ``shapes`` is the shape of a
    point in each layer before pooling, None where only a run can tell; ``layers`` and ``shapes`` are empty for timm,
    which alone knows them. ``multiplied``: how many parameters every token is multiplied with, which the vocabulary's
    are not, nor those of another tower. ``weight_bytes`` as stored, in ``dtype``.
    ``files`` are all that loading reads and that decides a number. ``notes`` are sentences for people.
    """

    folder: Path
    loader: Loader
    reads: Reads
    family: str
    tower: str | None
    config: Mapping[str, Any]
    layers: tuple[str, ...]
    shapes: tuple[StateShape, ...]
    default_pool: str
    causal: bool
    parameters: int
    multiplied: int
    weight_bytes: int
    dtype: str
    files: tuple[Path, ...]
    tokenizer: Path | None = None
    adapter: Path | None = None
    base: Path | None = None
    quantized: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def tokenizer_files(self) -> tuple[Path, ...]:
        """The files that the tokenizer is built from; none for images."""
        return tuple(file for file in self.files if file.parent == self.tokenizer and file.name in TOKENIZER_FILES)


def inspect_checkpoint(
    folder: Path,
    *,
    name: str | None = None,
    root: Path | None = None,
    loader: Loader | None = None,
    tower: str | None = None,
    base: Path | None = None,
    tokenizer: Path | None = None,
) -> Checkpoint:
    """Return the facts about the checkpoint in ``folder``, without loading it.

    Parameters
    ----------
    folder
        Holds the checkpoint as ``save_pretrained`` wrote it.
    name
        How messages call the folder; by default its name.
    root
        The catalog's folder: links may lead into it.
    loader
        The library that has to load it; by default the one that the files name. A sentence-transformers folder can be
        loaded by transformers, too.
    tower
        Which network of two, where the checkpoint holds two.
    base
        The folder of an adapter's base; by default the folder of that name inside the adapter's or beside it.
    tokenizer
        The folder of the tokenizer; by default the checkpoint's own, then its base's.

    Raises
    ------
    DataError
        ``missing_source``, ``damaged_source``, ``bad_weights``, ``untrusted_code``, ``unsupported_model``,
        ``missing_package``, ``no_tower``, ``no_processor``.
    """
    place = Place(folder, folder.name if name is None else name, root)
    if not folder.is_dir():
        raise DataError("missing_source", f"{place.name}: got no such folder, expected a checkpoint. Check the path.")
    kind = _kind(place)
    if base is not None and kind != "adapter":
        problem = f"{place.name}: got base: and no adapter_config.json, expected an adapter"
        raise DataError("missing_source", f"{problem}. Remove base.")
    if loader == "transformers" and kind == "sentence_transformers" and place.has("config.json"):
        kind = "transformers"
    wanted = "transformers" if kind == "adapter" else kind
    if loader is not None and loader != wanted:
        problem = f"{place.name}: got a checkpoint of {wanted}, expected one of {loader}"
        raise DataError("unsupported_model", f"{problem}. Name the folder in a section {wanted}.")
    if kind == "adapter":
        return _adapted(place, tower, base, tokenizer)
    if tower is not None and kind != "transformers":
        problem = f"{place.name}: got tower: {tower}, expected no tower, as the checkpoint holds one network"
        raise DataError("no_tower", f"{problem}. Remove tower.")
    if kind == "sentence_transformers":
        return _sentence_transformer(place, tokenizer)
    config = place.json("config.json")
    return _timm_model(place, config) if kind == "timm" else _transformers_model(place, config, tower, tokenizer)


def _kind(place: Place) -> Literal["adapter"] | Loader:
    if place.has("adapter_config.json"):
        return "adapter"
    if place.has("modules.json"):
        return "sentence_transformers"
    if not place.has("config.json"):
        names = sorted(entry.name for entry in place.folder.iterdir() if not entry.name.startswith("."))
        held = f"It holds {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" if names else "It is empty"
        raise DataError("missing_source", f"{place.name}: got no config.json, expected a checkpoint. {held}.")
    config = place.json("config.json")
    return "timm" if "architecture" in config and "model_type" not in config else "transformers"


def _transformers_model(place: Place, config: dict[str, Any], tower: str | None, tokenizer: Path | None) -> Checkpoint:
    family = config.get("model_type")
    if not isinstance(family, str):
        problem = "got a config.json without model_type, expected the name of an architecture"
        advice = "Save the model with save_pretrained of its library"
        raise DataError("unsupported_model", f"{place.name}: {problem}. {advice}.")
    check_kernels(config, f"{place.name}/config.json")
    check_dtype(config, place.name)
    notes = tuple(check_architecture(config, place.name))
    quantized = check_quantization(config, place.name)
    weights = place.weights()
    part, reads = running_tower(place, config, tower)
    tokenizer_folder, files = None, place.present(("config.json",))
    if reads == "texts":
        tokenizer_folder = place.folder if tokenizer is None else tokenizer
        files += tokenizer_files(place, tokenizer_folder)
    else:
        files += processor_files(place)
    states = hidden_states(config, part, tower, place.name)
    for one in towers(config) or (None,):
        check_agreement(config, tower_part(config, one), one, weights.tensors, place.name)
    return Checkpoint(
        folder=place.folder,
        loader="transformers",
        reads=reads,
        family=family,
        tower=tower,
        config=config,
        layers=layer_names(len(states.shapes)),
        shapes=states.shapes,
        default_pool=states.pool,
        causal=states.causal,
        parameters=weights.parameters,
        multiplied=weights.multiplied(part.get("vocab_size"), tower),
        weight_bytes=weights.n_bytes,
        dtype=weights.dtype,
        files=(*files, *weights.files),
        tokenizer=tokenizer_folder,
        quantized=quantized,
        notes=notes,
    )


def _timm_model(place: Place, config: dict[str, Any]) -> Checkpoint:
    """Return the facts in a timm folder; only timm itself knows which states an architecture has."""
    weights = place.weights()
    return Checkpoint(
        folder=place.folder,
        loader="timm",
        reads="images",
        family=str(config["architecture"]),
        tower=None,
        config=config,
        layers=(),
        shapes=(),
        default_pool="mean",
        causal=False,
        parameters=weights.parameters,
        multiplied=weights.parameters,
        weight_bytes=weights.n_bytes,
        dtype=weights.dtype,
        files=(*place.present(("config.json",)), *weights.files),
    )


def _sentence_transformer(place: Place, tokenizer: Path | None) -> Checkpoint:
    label = f"{place.name}/modules.json"
    check_inside(place.folder / "modules.json", place.folder, place.name, place.root)
    modules = parsed_json(place.folder / "modules.json", label)
    try:
        paths = [(str(module["type"]), str(module["path"])) for module in modules]
    except (KeyError, TypeError) as error:
        problem = "got no list of modules with type and path, expected what sentence-transformers saves"
        raise DataError("damaged_source", f"{label}: {problem}. Copy the file again.") from error
    for kind, path in paths:
        if not kind.startswith("sentence_transformers."):
            problem = f"got the module {kind[:100]!r}, which is code of its own, expected one of sentence_transformers"
            raise DataError("untrusted_code", f"{label}: {problem}. Record it with a torch factory and --trust-code.")
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            problem = f"got the path {path[:100]!r}, which leads out of the folder, expected one inside"
            raise DataError("missing_source", f"{label}: {problem}. Save the model again.")
    if not paths or not paths[0][0].endswith(".Transformer"):
        problem = f"got the first module {paths[0][0] if paths else 'none'!r}, expected a Transformer"
        raise DataError("unsupported_model", f"{label}: {problem}. Record it with a torch factory.")
    first = Place(place.folder / paths[0][1], f"{place.name}/{paths[0][1]}".rstrip("/"), place.root)
    inner = _transformers_model(first, first.json("config.json"), None, tokenizer)
    files = list(inner.files)
    files += place.present(("modules.json", "config_sentence_transformers.json"))
    own_settings = first.present(("sentence_bert_config.json", "sentence_roberta_config.json"))
    for file in own_settings:
        # Their model_args and config_args go to transformers, too.
        check_kernels(first.json(file.name), f"{first.name}/{file.name}")
    files += own_settings
    for _, path in paths[1:]:
        if path:
            below = sorted(file for file in (place.folder / path).rglob("*") if file.is_file())
            files += place.present(tuple(file.relative_to(place.folder).as_posix() for file in below))
    return replace(
        inner,
        folder=place.folder,
        loader="sentence_transformers",
        files=tuple(dict.fromkeys(files)),
    )


def _adapted(place: Place, tower: str | None, base: Path | None, tokenizer: Path | None) -> Checkpoint:
    settings = place.json("adapter_config.json")
    if settings.get("peft_type") != "LORA":
        problem = f"got an adapter of type {settings.get('peft_type')!r}, expected LORA"
        raise DataError(
            "unsupported_model", f"{place.name}: {problem}. Merge it into its base with merge_and_unload()."
        )
    if not place.has(ADAPTER_WEIGHTS):
        problem = f"got no {ADAPTER_WEIGHTS}, expected the adapter's weights"
        raise DataError("bad_weights", f"{place.name}: {problem}. Save it again with save_pretrained.")
    weights = tensors_of((place.folder / ADAPTER_WEIGHTS,), place.folder, place.name, place.root)
    folder = _base_folder(place, settings.get("base_model_name_or_path"), base)
    if folder.resolve() == place.folder.resolve():
        problem = f"got an adapter that names itself ({folder.name!r}) as its base, expected a whole model"
        raise DataError("missing_source", f"{place.name}: {problem}. Name the folder of its base: base: ../base.")
    if (folder / "adapter_config.json").exists():
        problem = f"got the base {folder.name!r}, which is an adapter itself, expected a whole model"
        raise DataError("unsupported_model", f"{place.name}: {problem}. Merge the two with merge_and_unload().")
    if tokenizer is None and place.present(VOCABULARIES):
        tokenizer = place.folder
    config = read_json(folder / "config.json", f"{folder.name}/config.json")
    on_base = Place(folder, folder.name, place.root)
    inner = _transformers_model(on_base, config, tower, tokenizer)
    if not inner.quantized:
        check_adapter(settings, weights.tensors, on_base.weights().tensors, (place.name, folder.name))
    return replace(
        inner,
        folder=place.folder,
        parameters=inner.parameters + weights.parameters,
        multiplied=inner.multiplied + weights.parameters,
        weight_bytes=inner.weight_bytes + weights.n_bytes,
        files=tuple(dict.fromkeys((*place.present(("adapter_config.json",)), *weights.files, *inner.files))),
        adapter=place.folder,
        base=folder,
    )


def _base_folder(place: Place, written: Any, base: Path | None) -> Path:
    """Return the folder of an adapter's base: the catalog's, or that of its name inside the folder or beside it.

    Only the last part of what the adapter says is looked up: an adapter from elsewhere names no path of this machine.
    """
    if base is not None:
        if not (base / "config.json").exists():
            problem = f"got base: {base} without config.json, expected a whole checkpoint"
            raise DataError("missing_source", f"{place.name}: {problem}. Name its folder.")
        return base
    if not isinstance(written, str) or not written:
        problem = "got an adapter_config.json without base_model_name_or_path, expected the name of a base"
        raise DataError("missing_source", f"{place.name}: {problem}. Name the folder of its base: base: ../base.")
    name = PurePosixPath(written.replace("\\", "/")).name
    if name and name != "..":
        inside, beside = place.folder / name, place.folder.parent / name
        if (inside / "config.json").exists():
            return inside
        if (beside / "config.json").exists() or beside == place.folder:
            return beside
    problem = f"got an adapter on {written[:200]!r}, expected its base in a folder {name or 'base'!r} beside it"
    raise DataError("missing_source", f"{place.name}: {problem}. Put it there, or name its folder: base: ../base.")


def layer_names(n_layers: int) -> tuple[str, ...]:
    """Return ``hidden.00`` and so on, as many as there are states; more digits where two are too few."""
    digits = max(2, len(str(n_layers - 1)))
    return tuple(f"hidden.{index:0{digits}}" for index in range(n_layers))
