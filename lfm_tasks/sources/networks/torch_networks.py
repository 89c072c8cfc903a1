"""Builds PyTorch networks: what a factory returns, with its weights, ready to run with the same bits every time."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from sys import modules as imported_modules
from typing import Any

import numpy as np

from lfm_tasks.catalog.names import did_you_mean
from lfm_tasks.catalog.sections import Catalog
from lfm_tasks.errors import DataError, one_line
from lfm_tasks.sources.files.paths import nearest
from lfm_tasks.sources.networks.factories import Recipe, run_factory


@dataclass(frozen=True)
class TorchNetwork:
    """A network that is ready to run, a digest of its tensors before anything ran, and the code that made it."""

    module: Any
    layers: Mapping[str, Any]
    state: str
    code: Mapping[str, Path]


def build_network(recipe: Recipe, catalog: Catalog) -> TorchNetwork:
    """Return the network that the factory builds, with its weights."""
    torch = _torch(recipe.model)
    with _seeded_generator(torch):
        built = run_factory(recipe, catalog)
    if not isinstance(built.value, torch.nn.Module):
        problem = f"got a {type(built.value).__name__} from the factory {recipe.factory}, expected a torch.nn.Module"
        raise DataError("bad_factory", f"model {recipe.model}: {problem}: return the network")
    module = built.value
    if recipe.weights is not None:
        load_weights(module, recipe.weights, recipe.weights_name)
    floats = {tensor.dtype for tensor in all_tensors(module) if tensor.is_floating_point()}
    # Half precision has no kernels for everything, and sums lose their digits.
    module = module if floats == {torch.float64} else module.float()
    module = module.eval().requires_grad_(False)
    layers = {name: layer for name, layer in module.named_modules() if name}
    return TorchNetwork(module, layers, state_digest(module), {**built.code, **_class_files(module)})


def _class_files(module: Any) -> dict[str, Path]:
    """Return the files that define the modules of a network, where no version of a package stands for them."""
    names = {type(layer).__module__ for layer in module.modules()} - {"builtins", "__main__"}
    files = {}
    for name in names:
        top = name.partition(".")[0]
        file = getattr(imported_modules.get(name), "__file__", None)
        if top != "torch" and package_version(top) is None and file is not None and Path(file).is_file():
            files[name] = Path(file)
    return files


def module_packages(module: Any) -> dict[str, str]:
    """Return the versions of the packages that a network's modules are defined in, torch aside."""
    tops = {type(layer).__module__.partition(".")[0] for layer in module.modules()} - {"torch", "builtins"}
    return {top: version for top in sorted(tops) if (version := package_version(top)) is not None}


def package_version(package: str) -> str | None:
    """Return the version of an installed package, by the name that it is imported by; None if no metadata tell."""
    try:
        return metadata.version(package)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def check_training(name: str, called: Mapping[str, Any]) -> None:
    """Raise DataError for a module that makes rows depend on chance or on their batch, though `eval` was called."""
    from torch import nn

    dropout = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)
    for layer, module in called.items():
        is_random = isinstance(module, dropout) and module.training and getattr(module, "p", 1) > 0
        is_mixing = isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        )
        if is_random or is_mixing:
            what = "in training mode" if module.training else "without running statistics"
            problem = (
                f"got the {type(module).__name__} {layer!r} {what}, expected rows that follow from their own inputs"
            )
            raise DataError("not_a_function", f"{name}: {problem} alone. Make eval() switch it off")


def load_weights(module: Any, path: Path, name: str) -> None:
    """Put the tensors of the file at ``path`` into ``module``, all of them.

    Raises
    ------
    DataError
        ``bad_weights`` for another kind of file, missing or unexpected tensors, other shapes, or higher precision than
        the network has; ``missing_source`` if there is no such file, or it cannot be read.
    """
    import safetensors.torch
    from safetensors import SafetensorError

    _check_file(path, name)
    try:
        stored = safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError("damaged_source", f"{name}: cannot be read ({str(error)[:200]}). Save it again") from error
    wanted = module.state_dict()
    for key in sorted(stored.keys() & wanted.keys()):
        _check_tensor(f"{name}#{key}", stored[key], wanted[key])
    # safetensors knows which names are tied to one another: its files hold such a tensor once.
    try:
        missing, unexpected = safetensors.torch.load_model(module, path, strict=False)
    except Exception as error:
        detail = one_line(str(error))
        problem = f"cannot be put into the network ({detail}), expected one tensor for each of its own"
        raise DataError("bad_weights", f"{name}: {problem}. Load them in the factory instead") from error
    if missing or unexpected:
        raise DataError("bad_weights", f"{name}: {_mismatch(sorted(missing), sorted(unexpected))}")


def state_digest(module: Any) -> str:
    """Return the SHA-256 of all parameters and stored buffers, names, types and shapes included."""
    hasher = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        if not hasattr(tensor, "shape"):
            continue  # extra state of any kind
        hasher.update(f"{key}:{tensor.dtype}:{tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous()
        hasher.update(values.reshape(-1).view(_bytes()).numpy().data if values.numel() else b"")
    return hasher.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8


def _check_file(path: Path, name: str) -> None:
    if path.suffix != ".safetensors":
        problem = f"got a {path.suffix or 'nameless'} file, expected .safetensors, which cannot hold code"
        advice = "safetensors.torch.save_model(model, 'model.safetensors') writes one"
        raise DataError("bad_weights", f"{name}: {problem}: {advice}")
    if not path.is_file():
        raise DataError("missing_source", f"{name}: no such file{nearest(path, name)}")


def _check_tensor(name: str, stored: Any, wanted: Any) -> None:
    if stored.shape != wanted.shape:
        shapes = f"got the shape {tuple(stored.shape)}, expected {tuple(wanted.shape)}"
        raise DataError("bad_weights", f"{name}: {shapes}. Check the factory's args")
    # Integers in place of floats are quantized: numbers of another scale.
    same_kind = stored.dtype.is_floating_point == wanted.dtype.is_floating_point
    if not same_kind or _promoted(stored.dtype, wanted.dtype) != wanted.dtype:
        types = f"got {stored.dtype}, expected {wanted.dtype} or what it holds without loss"
        raise DataError("bad_weights", f"{name}: {types}. Save it so, or let the factory build in {stored.dtype}")


def _promoted(stored: Any, wanted: Any) -> Any:
    import torch

    return torch.promote_types(stored, wanted)


def _mismatch(missing: list[str], unexpected: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"got nothing for {len(missing)} tensors, {missing[0]!r} first")
    if unexpected:
        hint = did_you_mean(unexpected[0], missing) if missing else ""
        parts.append(f"got {len(unexpected)} tensors that the network has not, {unexpected[0]!r} first{hint}")
    return f"{'; '.join(parts)}, expected exactly the network's own. Check factory, args and weights"


def as_array(tensor: Any) -> np.ndarray:
    """Return a tensor's values as a numpy array; bfloat16, which numpy does not have, as float32."""
    import torch

    values = tensor.detach().cpu()
    array: np.ndarray = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    return array


def all_tensors(module: Any) -> list[Any]:
    """Return the parameters and the buffers of a network."""
    return [*module.parameters(), *module.buffers()]


def _torch(model_name: str) -> Any:
    try:
        import safetensors.torch  # noqa: F401 - the other half of the extra
        import torch
    except ImportError as error:
        raise _no_torch(model_name, str(error)) from error
    return torch


def torch_version(model_name: str) -> str:
    """Return the version of PyTorch, which takes seconds to import; DataError if it is not installed."""
    try:
        spec = find_spec("torch")
    except ValueError:
        spec = None
    version = None if spec is None else package_version("torch")
    if version is None:
        raise _no_torch(model_name, "No module named 'torch'")
    return version


def _no_torch(model_name: str, found: str) -> DataError:
    problem = f"got no PyTorch ({found}), expected it to run this network"
    return DataError("missing_package", f'model {model_name}: {problem}: pip install "lfm-atlas[torch]"')


@contextmanager
def _seeded_generator(torch: Any) -> Iterator[None]:
    """Seed the global generator with 0, and put it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@contextmanager
def same_bits(torch: Any) -> Iterator[None]:
    """Compute on one thread, deterministically, module by module; put everything back as it was."""
    n_threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warns, fast = torch.is_deterministic_algorithms_warn_only_enabled(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # The fast path of transformers passes its inner modules by: their hooks would never run.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with _seeded_generator(torch):
            yield
    finally:
        torch.set_num_threads(n_threads)
        torch.use_deterministic_algorithms(strict, warn_only=warns)
        torch.backends.mha.set_fastpath_enabled(fast)


def first_tensor(output: Any) -> Any:
    """Return the first tensor in what a module gave: itself, or inside tuples, lists, dicts and model outputs."""
    import torch

    if isinstance(output, torch.Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, tuple | list) else ()
    return next((tensor for value in values if (tensor := first_tensor(value)) is not None), None)
