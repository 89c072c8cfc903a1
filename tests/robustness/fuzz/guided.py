"""Feeds a reader, or the catalog, inputs that libFuzzer makes: it keeps those that reach lines not reached before.

``guided.py KIND SECONDS FOLDER``, in a process of its own, since libFuzzer ends it. An input is read, or refused by a
DataError; anything else ends the process with an error, and the input stays in FOLDER.
"""

import shutil
import signal
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lfm_tasks.sources", "lfm_tasks.catalog", "lfm_tasks.stores"]):
    from lfm_tasks.catalog import CatalogError, read_catalog
    from lfm_tasks.errors import DataError

    # Before the feeder imports them: instrumented.
    from lfm_tasks.sources.files import hdf5_files
    from tests.robustness.fuzz.feed import KINDS, read

SECONDS, MIB = 20, 4096  # an input may take


def main(kind: str, seconds: int, folder: Path) -> None:
    """Feed inputs for so many seconds."""
    warnings.simplefilter("ignore")
    # The HDF5 library hangs on some inputs, which is known, and refused after a minute.
    hdf5_files._SECONDS = SECONDS / 10
    corpus, kept = folder / "corpus", folder / "kept"
    corpus.mkdir()
    kept.mkdir()
    if kind == "catalog":
        target = folder / "data_catalog.yaml"
        shutil.copy(Path(__file__).parents[3] / "data_catalog.yaml", corpus)
    else:
        suffix, make, keys = KINDS[kind]
        target = folder / f"a{suffix}"
        for variant in (0, 1):
            make(corpus / f"a{variant}{suffix}")

    def one(content: bytes) -> None:
        target.write_bytes(content)
        with suppress(DataError, CatalogError):
            if kind == "catalog":
                read_catalog(target)
            else:
                read(target, keys)

    limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MIB}", "-seed=1"]
    longest = max(path.stat().st_size for path in corpus.iterdir())
    limits += [f"-max_len={longest + 1024}", "-print_final_stats=1", f"-artifact_prefix={kept}/"]
    atheris.Setup([sys.argv[0], *limits, str(corpus)], one)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
