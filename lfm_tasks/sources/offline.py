"""Keeps Hugging Face libraries from connecting to the hub: only files on this machine are used."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    # transformers takes compiled kernels from there where the package kernels is installed.
    "USE_HUB_KERNELS": "NO",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def offline(*, is_forced: bool = True) -> Iterator[None]:
    """Keep the libraries from the network while the block runs, also those that are imported already.

    Parameters
    ----------
    is_forced
        False leaves alone what somebody set, such as ``HF_HUB_OFFLINE=0``.
    """
    wanted = {name: value for name, value in OFFLINE.items() if is_forced or name not in os.environ}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    # Read once, when the library is imported.
    constants: Any = sys.modules.get("huggingface_hub.constants") if "HF_HUB_OFFLINE" in wanted else None
    was_offline = getattr(constants, "HF_HUB_OFFLINE", None)
    if constants is not None:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        if constants is not None:
            constants.HF_HUB_OFFLINE = was_offline
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
