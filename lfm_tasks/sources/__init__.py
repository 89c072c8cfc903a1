"""Sources of activations: files, and networks that a run executes.

`open_source` and `read_dataset` open what a catalog names, `open_array` opens one array of a file of any kind, and
`open_head` cuts the part of a network from a layer to the output. The others are for readers of further kinds of
files: ``lfm_tasks/sources/files/formats.py`` says how to write one.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lfm_tasks.sources.files.formats import Format as Format
    from lfm_tasks.sources.files.formats import open_array as open_array
    from lfm_tasks.sources.files.paths import fingerprint as fingerprint
    from lfm_tasks.sources.files.paths import open_bytes as open_bytes
    from lfm_tasks.sources.files.stored_array import ReadRows as ReadRows
    from lfm_tasks.sources.files.stored_array import StoredArray as StoredArray
    from lfm_tasks.sources.files.stored_array import check_compression_ratio as check_compression_ratio
    from lfm_tasks.sources.files.stored_array import check_memory_size as check_memory_size
    from lfm_tasks.sources.files.stored_array import raw_rows as raw_rows
    from lfm_tasks.sources.files.stored_array import text_array as text_array
    from lfm_tasks.sources.networks.onnx_heads import open_head as open_head
    from lfm_tasks.sources.opening import open_source as open_source
    from lfm_tasks.sources.opening import read_dataset as read_dataset

_HOMES = {
    "Format": "lfm_tasks.sources.files.formats",
    "ReadRows": "lfm_tasks.sources.files.stored_array",
    "StoredArray": "lfm_tasks.sources.files.stored_array",
    "check_compression_ratio": "lfm_tasks.sources.files.stored_array",
    "check_memory_size": "lfm_tasks.sources.files.stored_array",
    "fingerprint": "lfm_tasks.sources.files.paths",
    "open_array": "lfm_tasks.sources.files.formats",
    "open_bytes": "lfm_tasks.sources.files.paths",
    "open_head": "lfm_tasks.sources.networks.onnx_heads",
    "open_source": "lfm_tasks.sources.opening",
    "raw_rows": "lfm_tasks.sources.files.stored_array",
    "read_dataset": "lfm_tasks.sources.opening",
    "text_array": "lfm_tasks.sources.files.stored_array",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Readers import h5py, pyarrow and more: only who uses them waits for it.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
