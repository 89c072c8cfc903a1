"""The cost of publishing: operations, memory, bytes written."""

from lfm_tasks.runtime.load import Load


def atlas_load(n_spaces: int, n_models: int, n_measures: int, kept_bytes: int) -> Load:
    """Return the cost of putting the atlas together and drawing its page; in the process of the run itself."""
    cells = n_spaces**2 * n_measures
    work = {
        # The table of files, the page, the modules that both import; columns and sections of each measure.
        "seconds": 0.6 + 0.015 * n_measures,
        # Of a cell: some twenty columns, each gathered, encoded, summed up and ranked; of two models: one of the page.
        "entries": float(8_000 * cells + 20_000 * n_models**2 + 300 * kept_bytes),
    }
    peak = 260 * cells + 24 * 8 * n_spaces**2 + 3 * kept_bytes
    written = 150_000 + 100 * cells + 8 * 8 * n_spaces**2 + kept_bytes
    return Load(1, work, peak, "the atlas", written)
