"""Requirements of a checkpoint beyond its files (custom code, packages, number formats); nothing is imported."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lfm_tasks.catalog.checkpoints import Loader
from lfm_tasks.errors import DataError

# What each loader imports. They come with the extra `hf`.
_PACKAGES: Mapping[Loader, tuple[str, ...]] = {
    "transformers": ("torch", "transformers", "tokenizers", "safetensors"),
    "timm": ("torch", "timm", "safetensors"),
    "sentence_transformers": ("torch", "transformers", "tokenizers", "sentence_transformers"),
}
# What transformers imports for each method of quantization: the name of the package, and of what is imported.
# https://huggingface.co/docs/transformers/main/quantization/overview
_QUANTIZERS: Mapping[str, Mapping[str, str]] = {
    "aqlm": {"accelerate": "accelerate", "aqlm[gpu,cpu]": "aqlm"},
    "auto-round": {"auto-round": "auto_round"},
    "awq": {"accelerate": "accelerate", "gptqmodel": "gptqmodel"},
    "bitnet": {"accelerate": "accelerate"},
    "bitsandbytes": {"accelerate": "accelerate", "bitsandbytes": "bitsandbytes"},
    "compressed-tensors": {"compressed-tensors": "compressed_tensors"},
    "eetq": {"accelerate": "accelerate", "kernels": "kernels"},
    "fbgemm_fp8": {"accelerate": "accelerate", "fbgemm-gpu": "fbgemm_gpu"},
    "fp8": {"accelerate": "accelerate"},
    "gptq": {"optimum": "optimum", "gptqmodel": "gptqmodel"},
    "higgs": {
        "accelerate": "accelerate",
        "flute-kernel": "flute",
        "fast-hadamard-transform": "fast_hadamard_transform",
    },
    "hqq": {"hqq": "hqq"},
    "mxfp4": {"accelerate": "accelerate", "kernels": "kernels"},
    "quanto": {"optimum-quanto": "optimum.quanto"},
    "quark": {"amd-quark": "quark"},
    "spqr": {"accelerate": "accelerate", "spqr-quant": "spqr_quant"},
    "torchao": {"torchao": "torchao"},
    "vptq": {"accelerate": "accelerate", "vptq": "vptq"},
}
_NEEDS_GPU = ("awq", "eetq", "fbgemm_fp8", "gptq", "higgs", "spqr", "vptq")


def require_packages(loader: Loader, name: str, *, adapter: bool = False) -> None:
    """Raise DataError ``missing_package`` for the first package of the extra ``hf`` that is not installed."""
    for package in (*_PACKAGES[loader], *(("peft",) if adapter else ())):
        if not _is_installed(package):
            problem = f"got no package {package}, expected it to run this checkpoint"
            raise DataError("missing_package", f'{name}: {problem}. Install it: pip install "lfm-atlas[hf]".')


def check_quantization(config: Mapping[str, Any], name: str) -> str | None:
    """Return how the weights are quantized, if they are; DataError ``missing_package`` for what that needs."""
    settings = config.get("quantization_config")
    if not isinstance(settings, dict):
        return None
    method = settings.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(settings) else "an unknown method")
    missing = [package for package, module in _QUANTIZERS.get(str(method), {}).items() if not _is_installed(module)]
    if missing:
        gpu = " and a GPU" if method in _NEEDS_GPU else ""
        problem = f"got weights quantized by {method}, which needs {' and '.join(missing)}{gpu}"
        advice = f"pip install {' '.join(map(repr, missing))}, or use the weights before quantization"
        raise DataError("missing_package", f"{name}: {problem}. {advice[0].upper()}{advice[1:]}.")
    return str(method)


def _is_bitsandbytes(settings: Mapping[str, Any]) -> bool:
    return any(settings.get(key) for key in ("load_in_4bit", "load_in_8bit"))


def check_architecture(config: Mapping[str, Any], name: str) -> Iterator[str]:
    """Yield notes on the code that runs; DataError if transformers has none for ``model_type``.

    A checkpoint with ``auto_map`` brings code of its own. It is never run: transformers has a class for many such
    types by now, and takes it.
    """
    model_type, own = str(config.get("model_type")), isinstance(config.get("auto_map"), dict)
    known = _quoted_in_transformers("auto_mappings.py", "configuration_auto.py")
    if known is None:  # `require_packages` says so
        return
    if f'"{model_type}"' in known:
        if own:
            yield f"config.json names code of its own, which is not run: transformers has {model_type} itself"
        return
    if own:
        problem = f"got model_type {model_type!r} with code of its own (auto_map), which is never run"
        advice = "Read the code, call it in a factory of a section torch, and use --trust-code"
        raise DataError("untrusted_code", f"{name}: {problem}. {advice}.")
    problem = f"got model_type {model_type!r}, which transformers {version('transformers')} does not know"
    raise DataError("unsupported_model", f"{name}: {problem}. Install a newer transformers, or fix config.json.")


# Implementations that transformers and torch bring themselves. Others are names of repositories of compiled kernels, or
# stand for one: where flash_attn is not installed, transformers takes ``flash_attention_2`` from the hub.
# https://huggingface.co/docs/transformers/main/attention_interface
_BUILT_IN = ("eager", "sdpa", "flex_attention", "batched_mm", "grouped_mm")


def check_kernels(config: Mapping[str, Any], name: str) -> None:
    """Raise DataError ``untrusted_code`` for a configuration that has transformers fetch or import compiled kernels.

    ``attn_implementation`` and its kin take the name of a repository of kernels, which is code, in place of a built-in
    implementation; ``use_kernels`` takes them for whole layers.
    """
    for key, value in config.items():
        if isinstance(value, dict) and not key.endswith("_implementation"):
            check_kernels(value, name)
            continue
        chosen = value.values() if isinstance(value, dict) else (value,)
        if (key == "use_kernels" and value) or (
            key.endswith("_implementation") and any(one not in (None, *_BUILT_IN) for one in chosen)
        ):
            problem = f"got {key}: {ascii(value)[:100]}, which is code from elsewhere and is never run"
            advice = "Remove the key, or write sdpa: transformers has built-in ones"
            raise DataError("untrusted_code", f"{name}: {problem}. {advice}.")


# The names of torch's types that weights can have.
_DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "double", "float", "half"),
    *("float8_e4m3fn", "float8_e5m2", "int8", "uint8"),
)


def check_dtype(config: Mapping[str, Any], name: str) -> None:
    """Raise DataError ``unsupported_model`` for a configuration whose weights would have a type that torch lacks."""
    for key, value in config.items():
        if isinstance(value, dict) and key.endswith("_config") and key != "quantization_config":
            check_dtype(value, name)
        if key in ("dtype", "torch_dtype") and value is not None and value not in _DTYPES:
            problem = f"got {key}: {ascii(value)[:100]} in config.json, expected float32, bfloat16, float16 or float64"
            raise DataError("unsupported_model", f"{name}: {problem}. Write the type of the stored weights.")


def check_tokenizer_code(settings: Mapping[str, Any], folder: Path, name: str) -> None:
    """Raise DataError ``untrusted_code`` for a tokenizer that is a class of the checkpoint's own."""
    known = _quoted_in_transformers("tokenization_auto.py")
    if known is None:
        return
    auto_map, kind = settings.get("auto_map"), settings.get("tokenizer_class")
    own = auto_map.get("AutoTokenizer") if isinstance(auto_map, dict) else auto_map
    stem = str(kind).removesuffix("Fast")
    is_known = kind is None or any(f'"{one}"' in known for one in (stem, f"{stem}Fast"))
    if is_known or not (own or not (folder / "tokenizer.json").exists()):
        return
    problem = f"got the tokenizer class {kind!r}, which is code of the checkpoint's own and is never run"
    advice = "Name a folder with the same tokenizer as a tokenizer.json: tokenizer: zoo/tokenizer"
    raise DataError("untrusted_code", f"{name}: {problem}. {advice}.")


@lru_cache
def installed_version(package: str) -> str:
    """Return the version of a package, or ``none``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that holds it
        return False


@lru_cache
def _quoted_in_transformers(*files: str) -> str | None:
    """Return the text of some files of ``transformers.models.auto``, whose tables name all that it knows."""
    package = find_spec("transformers")
    folders: Sequence[str] = (package.submodule_search_locations or ()) if package else ()
    texts = [
        path.read_text(encoding="utf-8")
        for folder in folders
        for file in files
        if (path := Path(folder) / "models" / "auto" / file).is_file()
    ]
    return "\n".join(texts) if texts else None
