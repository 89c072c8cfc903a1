"""The date of an atlas, from the logs of its runs: the atlas itself and its page hold no time."""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from lfm_tasks.stores.units.durable import read_regular

# Larger files are no logs of runs.
_MOST_BYTES = 1 << 24


@dataclass(frozen=True)
class RunDates:
    """The days, in UTC, on which an atlas was computed first, and on which a run last found it unchanged."""

    computed: date
    confirmed: date


def run_dates(store: Path, key: str) -> RunDates | None:
    """Return the dates of the atlas whose key is ``key``; None if no log of a run that ended well names it.

    ``store``: the folder of the store, whose ``runs/*.json`` are the logs. What is no log there is passed over.
    """
    ended = sorted(moment for path in (store / "runs").glob("*.json") if (moment := _ended(path, key)))
    return RunDates(ended[0].date(), ended[-1].date()) if ended else None


def _ended(path: Path, key: str) -> datetime | None:
    """Return when the run of a log ended, if it published this atlas or found it published."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        log = json.loads(read_regular(path))
        if log["outcome"] != "done" or log["key"] != key or log["unpublished"] or log.get("kept"):
            return None
        moment = datetime.fromisoformat(log["ended"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None
    return moment.astimezone(UTC) if moment.tzinfo else None
