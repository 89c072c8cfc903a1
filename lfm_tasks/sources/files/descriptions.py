"""JSON objects and tokenizers beside weights: read, and checked before anything runs."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lfm_tasks.errors import DataError, one_line
from lfm_tasks.sources.files.digests import DigestMemory
from lfm_tasks.sources.files.paths import readable, refuse_placeholder

TOKENIZER = "tokenizer.json"
_LINES = (".txt", ".codes", ".jinja")
_EXTRA = 'pip install "lfm-atlas[hf]"'


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file; DataError as `parsed_json`, or ``damaged_source`` for no object."""
    value = parsed_json(path, name)
    if not isinstance(value, dict):
        problem = f"got a JSON {type(value).__name__}, expected an object"
        raise DataError("damaged_source", f"{name}: {problem}. Copy the file again.")
    return value


def parsed_json(path: Path, name: str) -> Any:
    """Return the content of a JSON file; DataError ``damaged_source`` or ``missing_source`` if it cannot be read."""
    with readable(name):
        refuse_placeholder(path)
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        problem = f"got no JSON ({one_line(str(error), 100)}), expected the description of a model"
        raise DataError("damaged_source", f"{name}: {problem}. Copy the file again.") from error


def tokenizers_package(name: str) -> Any:
    """Return the package tokenizers; DataError ``missing_package``, which calls the model ``name``, without it."""
    try:
        import tokenizers
    except ImportError as error:
        problem = "got texts and no package tokenizers, expected it to prepare them"
        raise DataError("missing_package", f"{name}: {problem}. Install it: {_EXTRA}.") from error
    return tokenizers


def open_tokenizer(path: Path, name: str) -> Any:
    """Return the tokenizer in a tokenizer.json.

    Raises
    ------
    DataError
        ``damaged_source`` if its library cannot read the file; ``missing_package``.
    """
    library = tokenizers_package(name)
    parsed_json(path, name)  # its message names the place
    try:
        return library.Tokenizer.from_file(str(path))
    except Exception as error:  # the Rust library raises plain exceptions
        problem = f"got a tokenizer that tokenizers {library.__version__} cannot read ({one_line(str(error), 120)})"
        advice = "Save it again with save_pretrained, or install the version that wrote it"
        raise DataError("damaged_source", f"{name}: {problem}, expected a whole one. {advice}.") from error


def check_tokenizer(files: Sequence[Path], name: str, memory: DigestMemory) -> int | None:
    """Return how many special tokens a tokenizer adds to each text; None if it is described without tokenizer.json.

    What was read once is remembered by its digest, and not read again.

    Parameters
    ----------
    files
        All files of the tokenizer.
    name
        How messages call their folder.
    memory
        What earlier runs know of files.

    Raises
    ------
    DataError
        ``damaged_source`` for a file that its library cannot read; ``missing_package``.
    """
    n_special: int | None = None
    for path in files:
        label = f"{name}/{path.name}"
        with readable(label):
            key = f"tokenizer {path.name} {memory.file_digest(path)}"
        known = memory.recall(key)
        if known is None:
            known = {"n_special": _checked(path, label)}
            memory.remember(key, known)
        n_special = known["n_special"] if path.name == TOKENIZER else n_special
    return n_special


def _checked(path: Path, name: str) -> int | None:
    if path.name == TOKENIZER:
        return int(open_tokenizer(path, name).num_special_tokens_to_add(False))
    if path.suffix == ".json":
        read_json(path, name)
        return None
    with readable(name):
        refuse_placeholder(path)
        content = path.read_bytes()
    try:
        content.decode("utf-8" if path.suffix in _LINES else "latin-1")
    except UnicodeDecodeError as error:
        problem = "got bytes that are no UTF-8, expected text"
        raise DataError("damaged_source", f"{name}: {problem}. Copy the file again.") from error
    # Merges may be none.
    if not content and path.name != "merges.txt":
        raise DataError("damaged_source", f"{name}: got an empty file, expected a tokenizer's. Copy the file again.")
    return None


def check_max_tokens(max_tokens: int | None, n_special: int | None, name: str) -> None:
    """Raise DataError ``bad_inputs`` if all that is read of a text are the special tokens of its tokenizer."""
    if max_tokens is not None and n_special is not None and max_tokens <= n_special:
        problem = f"got max_tokens: {max_tokens} and a tokenizer that adds {n_special} special tokens to each text"
        raise DataError("bad_inputs", f"{name}: {problem}, expected room for words. Raise max_tokens.")


def cut_texts(n_cut: int, n_texts: int, max_tokens: int | None, n_special: int | None) -> tuple[str, ...]:
    """Return a sentence for people on how many texts were cut, none if none were."""
    if not n_cut:
        return ()
    special = f", {n_special} of them special ones" if n_special else ""
    share = f"{n_cut} of {n_texts} texts ({100 * n_cut / n_texts:.1f} %)"
    return (f"{share} were cut at {max_tokens} tokens{special}",)
