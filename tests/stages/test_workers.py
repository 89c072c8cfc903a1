"""What workers say."""

import logging

import pytest

from lfm_tasks.stages.workers import is_news


@pytest.mark.parametrize(
    ("message", "wanted"),
    [("Failed to communicate with scheduler during heartbeat.", False), ("Worker is at 81% memory usage", True)],
)
def test_missed_heartbeat__is_no_news(message: str, wanted: bool) -> None:
    record = logging.LogRecord("distributed.worker", logging.ERROR, __file__, 1, message, None, None)

    assert is_news(record) is wanted
