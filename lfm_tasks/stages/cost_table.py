"""Seconds for each amount of work that `costs` counts: fitted and printed by tests/benchmarks/bench_costs.py."""

from collections.abc import Mapping

# Raised with every table that is shipped.
TABLE_VERSION = 1
# What the machine of the table took for `machine_speed`'s product, seconds; times scale with it.
PRODUCT_SECONDS = 0.021
# What a worker takes before any task, with all that the tasks import.
WORKER_BYTES = 200 << 20
SECONDS: Mapping[str, float] = {}
