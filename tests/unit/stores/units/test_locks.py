"""One run a store, and no lock that outlives its holder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lfm_tasks.stores.units.durable import StoreBusyError, locked

HOLD = """
import sys, time
from pathlib import Path
from lfm_tasks.stores.units.durable import locked
with locked(Path(sys.argv[1]), "nightly run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock__is_refused_with_its_holder_and_falls_with_it(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreBusyError, match=rf"in use by 'nightly run' \(process {holder.pid} on .*\): wait"):
            locked(tmp_path, "mine").__enter__()
    finally:
        holder.kill()
        holder.communicate()

    with locked(tmp_path, "mine"):
        assert json.loads((tmp_path / "lock").read_text())["purpose"] == "mine"


def test_lock__is_free_again_after_its_block(tmp_path: Path) -> None:
    for purpose in ("first", "second"):
        with locked(tmp_path, purpose):
            pass


def test_lock__with_unreadable_holder_is_refused_all_the_same(tmp_path: Path) -> None:
    with locked(tmp_path, "first"):
        (tmp_path / "lock").write_text("rubbish")
        with pytest.raises(StoreBusyError, match="in use by another run"):
            locked(tmp_path, "second").__enter__()
