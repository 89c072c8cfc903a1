"""What workers say, and what they are told."""

import logging
from copy import deepcopy

import dask
import pytest

from lfm_tasks.workers.dask_config import DASK_SETTINGS
from lfm_tasks.workers.pool import is_news, quieten


@pytest.mark.parametrize(
    ("message", "wanted"),
    [("Failed to communicate with scheduler during heartbeat.", False), ("Worker is at 81% memory usage", True)],
)
def test_missed_heartbeat__is_no_news(message: str, wanted: bool) -> None:
    record = logging.LogRecord("distributed.worker", logging.ERROR, __file__, 1, message, None, None)

    assert is_news(record) is wanted


def test_dask_settings__are_not_changed_by_who_reads_them() -> None:
    before = deepcopy(DASK_SETTINGS)
    with dask.config.set():
        quieten()
        dask.config.get("distributed.scheduler.http.routes").append("a.route")

    assert before == DASK_SETTINGS
