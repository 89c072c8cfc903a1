"""When an atlas was computed: only what a log of a run that ended well says."""

import json
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from lfm_tasks.report import render_report
from lfm_tasks.report.run_dates import RunDates, run_dates

KEY = "a" * 64
DONE = {"outcome": "done", "key": KEY, "unpublished": "", "ended": "2026-11-28T23:30:00+00:00"}


def write(store: Path, *logs: dict[str, Any] | str) -> Path:
    (store / "runs").mkdir()
    for number, log in enumerate(logs):
        (store / "runs" / f"{number}.json").write_text(log if isinstance(log, str) else json.dumps(log))
    return store


def test_dates__are_those_of_the_first_and_the_last_run_that_ended_well(tmp_path: Path) -> None:
    # In UTC: an hour ahead, this is still the 28th.
    again = DONE | {"ended": "2026-11-29T00:30:00+01:00"}
    store = write(tmp_path, DONE | {"ended": "2026-12-24T00:00:00+00:00"}, DONE, again)

    assert run_dates(store, KEY) == RunDates(date(2026, 11, 28), date(2026, 12, 24))
    assert run_dates(store, "b" * 64) is None


@pytest.mark.parametrize(
    "log",
    [
        DONE | {"outcome": "failed"},
        DONE | {"outcome": "unfinished", "ended": None},
        DONE | {"unpublished": "model"},
        DONE | {"kept": "too few spaces"},
        DONE | {"ended": "<b>yesterday</b>"},
        DONE | {"ended": "2026-11-28T23:30:00"},  # in which time zone?
        {"outcome": "done"},
        "[]",
        "not JSON",
        "[" * 100_000,
    ],
)
def test_log_that_does_not_say_when__gives_no_date(tmp_path: Path, log: dict[str, Any] | str) -> None:
    assert run_dates(write(tmp_path, log), KEY) is None


def test_folder_without_logs__gives_no_date(tmp_path: Path) -> None:
    assert run_dates(tmp_path / "nothing", KEY) is None
    (tmp_path / "runs" / "folder.json").mkdir(parents=True)
    assert run_dates(tmp_path, KEY) is None


def test_page__has_the_dates_that_it_is_given_and_no_other(made_atlas: Callable[..., Any]) -> None:
    atlas, summary = made_atlas(3, 1)
    first, second = date(2026, 1, 2), date(2026, 3, 4)

    assert "; computed on 2026-01-02." in render_report(atlas, summary, dates=RunDates(first, first))
    both = render_report(atlas, summary, dates=RunDates(first, second))
    assert "; computed on 2026-01-02, unchanged on 2026-03-04." in both
    assert "computed on" not in render_report(atlas, summary).split("<main>")[0]
