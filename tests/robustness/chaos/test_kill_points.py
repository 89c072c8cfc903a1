"""A change of the disk fails, or kills its process; the next run ends where an undisturbed one does, bit for bit."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.robustness.chaos.conftest import Faults, contents

pytestmark = pytest.mark.chaos
# Evenly over the operations of a run, of each kind of fault; two commands a point, half a second each.
N_POINTS, N_PUBLISHED = 110, 30


class Left(NamedTuple):
    """How a command ended: its exit code (negative: the signal), what it said on stderr, what it did to the disk."""

    code: int
    told: str
    operations: list[str]


@pytest.fixture(scope="module")
def command(build: Any, tiny_zoo: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Left]:
    """Run the command in a forked child, undisturbed or with a fault at the ``last``-th change of the disk."""
    # Children inherit what is imported and compiled.
    build(tiny_zoo(tmp_path_factory.mktemp("warm")))
    import lfm_atlas.cli.main  # noqa: F401

    def run(folder: Path, last: int = 0, *, kills: bool = False) -> Left:
        told, log = folder / "told.txt", folder / "operations.json"
        log.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            _leave(folder, told, log, Faults(last, "kill" if kills else "fail", folder))
        _, status = os.waitpid(child, 0)
        operations = json.loads(log.read_text()) if log.exists() else []
        return Left(os.waitstatus_to_exitcode(status), told.read_text(), operations)

    return run


def _leave(folder: Path, told: Path, log: Path, faults: Faults) -> None:
    code, opened, stderr = 99, os.open, os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for output in (1, 2):
        os.dup2(stderr, output)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    try:
        from lfm_atlas.cli.main import main
        from lfm_tasks.stores.units import durable

        faults.install()
        # One system call, made from C.
        durable._exchange = faults._counted("exchange", durable._exchange)
        warnings.filterwarnings("ignore", message="Cyclopts application invoked without tokens")
        sys.argv = ["lfm-atlas", "run", str(folder / "data_catalog.yaml"), "--no-prefect", "--no-dask"]
        main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 98
    except BaseException as error:  # what Python would print as a traceback
        sys.stderr.write(f"Traceback: {type(error).__name__}: {error}\n")
    finally:
        sys.stderr.flush()
        os.write(opened(log, os.O_WRONLY | os.O_CREAT, 0o666), json.dumps(faults.operations).encode())
        os._exit(code)


def receipts(folder: Path) -> dict[str, int]:
    """Return the committed units, and when each was committed."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(".lfm-atlas/receipts/*/[!.]*.json")}


def under_way(folder: Path) -> int:
    """Return how many units were begun and have no receipt: what has to be made once more."""
    units = {path.name for path in folder.glob(".lfm-atlas/units/*/*")}
    stems = {Path(name).stem for name in receipts(folder)}
    return len([*folder.glob(".lfm-atlas/staging/*"), *(units - stems)])


@pytest.mark.parametrize("kills", [True, False], ids=["kills", "fails"])
def test_operation_that_fails_or_kills__loses_nothing(
    kills: bool,
    tmp_path: Path,
    tiny_zoo: Callable[..., Path],
    command: Callable[..., Left],
    state: Callable[[Path], Any],
    leftovers: Callable[[Path], list[str]],
    figure: Callable[[str], None],
) -> None:
    undisturbed = tiny_zoo(tmp_path / "undisturbed")
    first = command(undisturbed)
    assert first.code == 0, first.told
    expected, n_operations = state(undisturbed), len(first.operations)
    healed = most = n_points = 0
    # Kills and failures meet different operations.
    for number in range(1 if kills else 9, n_operations + 1, n_operations // N_POINTS):
        folder = tiny_zoo(tmp_path / f"{number}")
        left = command(folder, number, kills=kills)
        place = f"{number} ({first.operations[number - 1]}): {left.told}"
        if len(left.operations) < number and left.code == 0:
            continue  # some more or fewer writes of a run's log are no fault: it had ended before
        if kills:
            assert left.code == -signal.SIGKILL, place
        else:
            assert left.code in (0, 1), place
            assert "Traceback" not in left.told, place
            # A fault while leftovers are cleared away costs the run nothing.
            assert "Input/output error" in left.told if left.code else state(folder) == expected, place
            healed += left.code == 0
        kept, redone = receipts(folder), under_way(folder)

        again = command(folder)

        assert again.code == 0, f"{place} -> {again.told}"
        assert state(folder) == expected, place
        assert leftovers(folder) == [], place
        assert kept.items() <= receipts(folder).items(), place
        assert redone <= 1, place
        most, n_points = max(most, redone), n_points + 1
    assert n_points >= 100
    ends = "killed" if kills else f"failed ({healed} of these did not stop the run)"
    figure(f"kill points: {n_points} of {n_operations} operations {ends}; at most {most} unit made again")


def test_kill_while_another_atlas_is_published__leaves_one_of_them_whole(
    tmp_path: Path,
    tiny_zoo: Callable[..., Path],
    command: Callable[..., Left],
    leftovers: Callable[[Path], list[str]],
    figure: Callable[[str], None],
) -> None:
    folder = tiny_zoo(tmp_path / "zoo")
    assert command(folder).code == 0
    old = contents(folder / "atlas")
    tiny_zoo(tmp_path / "zoo", measures=["overlap", "cka_linear"])
    counted = tiny_zoo(tmp_path / "counted")
    command(counted)
    whole = command(tiny_zoo(tmp_path / "counted", measures=["overlap", "cka_linear"]))
    assert whole.code == 0, whole.told
    new = contents(counted / "atlas")
    n_operations = len(whole.operations)
    begin = next(number for number, name in enumerate(whole.operations, 1) if ".staged" in name)
    exchange = next(number for number, name in enumerate(whole.operations, 1) if name.startswith("exchange"))
    n_old = n_new = 0
    for number in sorted({*range(begin, n_operations, (n_operations - begin) // N_PUBLISHED), exchange, exchange + 1}):
        tried = tmp_path / f"{number}"
        command(tiny_zoo(tried))
        left = command(tiny_zoo(tried, measures=["overlap", "cka_linear"]), number, kills=True)
        assert left.code == -signal.SIGKILL, whole.operations[number - 1]
        found = contents(tried / "atlas")
        assert found in (old, new), whole.operations[number - 1]
        n_old, n_new = n_old + (found == old), n_new + (found == new)

        assert command(tried).code == 0

        assert contents(tried / "atlas") == new
        assert leftovers(tried) == []
    assert min(n_old, n_new) > 0
    figure(f"kills while another atlas is published: {n_old + n_new}; {n_old} left the old one, {n_new} the new one")
