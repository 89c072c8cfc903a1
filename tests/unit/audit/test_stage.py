"""All checks together: what is off is skipped, what stops is an error of its own."""

import logging
from typing import Any

import numpy as np
import pytest

from lfm_tasks.audit.stage import AGAINST_BASELINE, OF_THE_ZOO, evaluate, guarded
from lfm_tasks.catalog.audit import Checks
from lfm_tasks.errors import DataError


def test_every_check_of_the_catalog__is_made(publish: Any, zoo: Any) -> None:
    found = [check.name for check in evaluate(Checks(), publish(zoo()), None)]

    assert found == list(Checks.model_fields)
    assert {*OF_THE_ZOO, *AGAINST_BASELINE} == set(Checks.model_fields)


def test_check_that_is_off__is_skipped(publish: Any, zoo: Any) -> None:
    [drift] = [c for c in evaluate(Checks(drift=None), publish(zoo()), None) if c.name == "drift"]

    assert (drift.status, drift.message, drift.breaks) == ("skipped", "switched off in the catalog", False)


@pytest.mark.parametrize("name", list(Checks.model_fields))
def test_check_that_stops__is_an_error_and_leaves_the_others(
    publish: Any, zoo: Any, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(*arguments: Any) -> None:
        raise KeyError("no such cell")

    table = OF_THE_ZOO if name in OF_THE_ZOO else AGAINST_BASELINE
    monkeypatch.setitem(table, name, stop)  # type: ignore[arg-type]
    with caplog.at_level(logging.CRITICAL):
        found = {check.name: check for check in evaluate(Checks(), publish(zoo()), None)}

    assert found[name].status == "error"
    assert "could not be told: KeyError: 'no such cell'" in found[name].message
    assert found[name].breaks == found[name].enforced
    assert all(check.status != "error" for other, check in found.items() if other != name)


def test_damaged_baseline__is_an_error_of_the_checks_that_need_it(publish: Any, zoo: Any) -> None:
    broken = DataError("missing_source", "the baseline is damaged")
    found = {check.name: check for check in evaluate(Checks(), publish(zoo()), broken)}

    assert {name for name, check in found.items() if check.status == "error"} == set(AGAINST_BASELINE)
    assert found["drift"].message == "the baseline is damaged"


def test_full_disk__ends_the_audit() -> None:
    def full() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        guarded("drift", True, full)


def test_zoo_without_calibrated_values__is_skipped_not_passed(publish: Any, zoo: Any) -> None:
    found = {c.name: c for c in evaluate(Checks(), publish(np.full((8, 8), np.nan)), None)}

    assert found["near_duplicate"].status == found["undeclared_lineage"].status == "skipped"
