"""Loads checkpoints with the classes of their own libraries: installed code only, files of the folder only."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from lfm_tasks.errors import DataError, one_line
from lfm_tasks.sources.checkpoints.folder import Checkpoint
from lfm_tasks.sources.offline import offline

# Where transformers has a choice: the processors of images that need Pillow only.
IMAGE_BACKEND = "pil"
# Nothing of a folder's own code, nothing from the hub.
SAFELY: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
# Weights without which every hidden state is what it is: heads that stand on the last one.
_WITHOUT_EFFECT = ("pooler", "logit_scale", "logit_bias", "_projection", "lm_head", "classifier", "score.")
# Networks on which adapters are trained, the one without a head first.
_AUTO_CLASSES = (
    *("AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModelForMaskedLM"),
    *("AutoModelForSequenceClassification", "AutoModelForTokenClassification", "AutoModelForQuestionAnswering"),
    "AutoModelForImageClassification",
)
# The attributes under which libraries keep the two networks of one checkpoint.
_TOWERS = {"text": ("text_model", "language_model"), "vision": ("vision_model", "vision_tower", "visual")}


def import_library(library: str, model: str) -> Any:
    """Return a library of the extra ``hf``; DataError ``missing_package`` if it is not installed or does not work."""
    try:
        return import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library.partition(".")[0]:
            raise DataError("missing_package", f"{model}: {_broken(library, error)}") from error
        problem = f"got no package {library}, expected it, because it loads this checkpoint"
        raise DataError("missing_package", f'{model}: {problem}. Run pip install "lfm-atlas[hf]".') from error
    except Exception as error:
        raise DataError("missing_package", f"{model}: {_broken(library, error)}") from error


def _broken(library: str, error: Exception) -> str:
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    text = "; ".join(dict.fromkeys(error_text(cause) for cause in chain))
    advice = "Install what it misses, or versions that fit together"
    if "torchvision" in text:
        advice = "Torchvision was built for another torch. Install the one of your torch, or remove it"
    return f"got a package {library} that cannot be imported ({text}), expected a working one. {advice}."


@contextmanager
def quietly(transformers: Any) -> Iterator[None]:
    """Silence what libraries say about weights that they do not use and settings that are no longer usual."""
    level, has_bars = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if has_bars:
            transformers.logging.enable_progress_bar()


def error_text(error: BaseException) -> str:
    """Return an error of a library in one printable line."""
    return f"{type(error).__name__}: {one_line(str(error), 300)}"


@contextmanager
def library_errors(model: str, advice: str) -> Iterator[None]:
    """Turn an error of a library into a DataError that names the model."""
    try:
        yield
    except DataError:
        raise
    except ImportError as error:
        raise DataError("missing_package", f"{model}: {_broken('that this checkpoint needs', error)}") from error
    except Exception as error:
        text = error_text(error)
        if "ignore_mismatched_sizes" in text:
            problem = "got weights of other shapes than config.json says, expected those of one model"
            raise DataError("bad_weights", f"{model}: {problem}. Copy both again, together.") from error
        if "trust_remote_code" in text:
            problem = "got a checkpoint that needs Python code of its own, expected one of its library's architectures"
            factory = "Read the code, then record it with a torch factory and --trust-code"
            raise DataError("untrusted_code", f"{model}: {problem}. {factory}.") from error
        raise DataError("unsupported_model", f"{model}: {advice[0].lower() + advice[1:]} ({text}).") from error


def read_configuration(folder: Path, model: str) -> Any:
    """Return the configuration as transformers reads it, so that its mistakes are not taken for a tokenizer's."""
    transformers = import_library("transformers", model)
    advice = "transformers cannot read config.json. Copy it again, or install the version that wrote it"
    with offline(), quietly(transformers), library_errors(model, advice):
        return transformers.AutoConfig.from_pretrained(str(folder.absolute()), **SAFELY)


def load_transformers(checkpoint: Checkpoint, model: str, dtype: str) -> Any:
    """Return the network of a transformers checkpoint, in evaluation mode: the tower that runs, its adapter applied.

    Parameters
    ----------
    checkpoint
        What to load.
    model
        How messages call it.
    dtype
        ``auto`` for the type of the stored weights, or the name of a torch type.

    Raises
    ------
    DataError
        ``bad_weights`` for weights that are missing, ``unsupported_model``, ``untrusted_code``, ``missing_package``.
    """
    transformers = import_library("transformers", model)
    advice = "The library cannot load this checkpoint. Save it again, or install the version that wrote it"
    with offline(), quietly(transformers), library_errors(model, advice):
        if checkpoint.adapter is None:
            network = _from_folder(transformers.AutoModel, checkpoint.folder, dtype, model)
        else:
            network = _with_adapter(transformers, checkpoint, dtype, model)
        return _tower(network, checkpoint.tower, model).eval().requires_grad_(False)


def _from_folder(auto_class: Any, folder: Path, dtype: str, model: str) -> Any:
    # Weights of other shapes are reported below: the error of transformers names none of them.
    network, report = auto_class.from_pretrained(
        str(folder.absolute()),
        use_safetensors=True,
        dtype=dtype,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **SAFELY,
    )
    if report["mismatched_keys"]:
        name, stored, built = min(report["mismatched_keys"])
        problem = f"got the tensor {name!r} of {_shape(stored)}, expected {_shape(built)} by config.json"
        raise DataError("bad_weights", f"{model}: {problem}. Copy config.json and weights of one model, together.")
    missing = sorted(key for key in report["missing_keys"] if not any(part in key for part in _WITHOUT_EFFECT))
    if missing:
        problem = f"got no weights for {len(missing)} tensors, {missing[0]!r} first, expected one for each"
        advice = "Save the whole model again: its library would fill them with random numbers"
        raise DataError("bad_weights", f"{model}: {problem}. {advice}.")
    return network


def _shape(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))


def _with_adapter(transformers: Any, checkpoint: Checkpoint, dtype: str, model: str) -> Any:
    """Return the network of an adapter's base, with the adapter inside."""
    peft = import_library("peft", model)
    base, adapter = checkpoint.base, checkpoint.adapter
    if base is None or adapter is None:
        raise TypeError(f"{model}: an adapter has a base")
    wanted = _adapted_modules(adapter)
    auto_class = _adapted_class(transformers, base, wanted, model)
    whole = _from_folder(auto_class, base, dtype, model)
    adapted = peft.PeftModel.from_pretrained(whole, str(adapter.absolute()), local_files_only=True)
    inside = adapted.get_base_model()
    return inside if auto_class is transformers.AutoModel else inside.base_model


def _adapted_modules(adapter: Path) -> set[str]:
    """Return the modules of the base that an adapter changes, by the names of its tensors."""
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="np") as file:
        names = [name.removeprefix("base_model.model.") for name in file.keys()]  # noqa: SIM118 - no mapping
    return {name.partition(".lora_")[0] for name in names if ".lora_" in name}


def _adapted_class(transformers: Any, base: Path, wanted: set[str], model: str) -> Any:
    """Return the Auto class whose network has the modules that the adapter was trained on.

    An adapter of a network with a head names modules one level deeper than the network without; peft leaves those
    out that it does not find, and says so in a warning only.
    """
    import torch

    config = read_configuration(base, model)
    for name in _AUTO_CLASSES:
        auto_class = getattr(transformers, name)
        try:
            with torch.device("meta"):
                empty = auto_class.from_config(config, trust_remote_code=False)
        except ValueError:
            continue  # the family has no such head
        if wanted <= {module for module, _ in empty.named_modules()}:
            return auto_class
    problem = f"got an adapter of {sorted(wanted)[0] if wanted else 'no module'!r}, expected modules of its base"
    raise DataError("bad_weights", f"{model}: {problem} {base.name}. Name the base that it was trained on: base:.")


def _tower(network: Any, tower: str | None, model: str) -> Any:
    """Return the network that runs: the whole one for a decoder, which reads what its encoder gives."""
    if tower in _TOWERS:
        found = next((getattr(network, name) for name in _TOWERS[tower] if hasattr(network, name)), None)
        if found is None:
            problem = f"got a {type(network).__name__}, which keeps no {tower} tower apart"
            raise DataError("unsupported_model", f"{model}: {problem}. Record it with a torch factory.")
        return found
    return network.get_encoder() if tower == "encoder" else network


def on_meta(build: Callable[[], Any]) -> Any:
    """Return a network without weights, which takes no memory: only its modules and shapes are real."""
    import torch

    with torch.device("meta"):
        return build().eval()
