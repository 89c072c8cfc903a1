"""Rates of operations: every kind has one, measured within what machines differ by."""

import pytest

from lfm_tasks.runtime.load import KINDS, Load
from lfm_tasks.runtime.rates import RATES, load_seconds, measured_rates


def test_measured_rates__have_every_kind_and_are_of_the_order_of_the_shipped_ones() -> None:
    rates = measured_rates()
    assert rates.keys() == RATES.keys() == KINDS.keys()
    for kind, seconds in rates.items():
        assert 1 / 30 < seconds / RATES[kind] < 30, kind


def test_load_seconds__are_amounts_times_rates() -> None:
    load = Load(2, {"products": 1e9, "tasks": 2.0})
    assert load_seconds(load, {"products": 1e-10, "tasks": 0.5}) == pytest.approx(1.1)
