"""``lfm-atlas verify`` lists damage; the next run makes exactly that again; errors of the disk are sentences."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas.cli.main import app
from lfm_atlas.console import format_os_error
from lfm_tasks.stores.units.durable import locked

SMALLER = {"graph": {"n_neighbors": 5}, "n_eigenpairs": 4, "null": {"n_permutations": 9}, "measures": ["overlap"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, related_spaces: Any, write_zoo: Any, build: Any) -> Path:
    models = related_spaces(2, n_points=40, n_layers=1)
    folder: Path = write_zoo(tmp_path_factory.mktemp("built"), models, **SMALLER)
    build(folder)
    return folder


def verify(folder: Path, *options: str) -> int:
    code = app(["verify", str(folder / "data_catalog.yaml"), *options], result_action="return_value")
    assert isinstance(code, int)
    return code


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_verify__lists_damage_and_the_next_run_makes_just_that_again(
    built: Path, tmp_path: Path, build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(built, folder)
    assert verify(folder) == 0
    assert ", 0 damaged" in capsys.readouterr().out
    arrays = next(folder.glob(".lfm-atlas/units/bases/*/arrays.zip"))
    key = arrays.parent.name
    arrays.write_bytes(bytes(len(arrays.read_bytes())))
    (folder / "atlas" / "summary.json").unlink()

    assert verify(folder) == 1
    found = capsys.readouterr().err
    assert f"units/bases/{key}: unit bases/{key}: arrays.zip is damaged" in found
    assert f"{folder / 'atlas'}: summary.json is missing" in found
    assert verify(folder, "--format", "json") == 1
    assert len(json.loads(capsys.readouterr().out)["damages"]) == 2
    outcome = build(folder)
    assert (outcome.computed["activations"], outcome.computed["bases"], outcome.computed["atlas"]) == (0, 1, 1)
    assert outcome.put_aside == (f"units/bases/{key}: unit bases/{key}: arrays.zip is damaged",)
    assert contents(folder / "atlas") == contents(built / "atlas")
    assert verify(folder) == 0


def test_verify__tells_of_lost_notes_and_damaged_names_and_runs_mend_notes(
    built: Path, tmp_path: Path, build: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(built, folder)
    [note] = folder.glob(".lfm-atlas/references/*.json")
    content = note.read_bytes()
    (folder / ".lfm-atlas" / "maps").mkdir()
    (folder / ".lfm-atlas" / "maps" / "mine.json").write_text("{}")
    note.unlink()
    assert verify(folder) == 1
    found = capsys.readouterr().err
    assert f"references/{note.name}: found no note of what the atlas" in found
    assert "maps/mine.json: found a damaged file mine.json" in found
    note.write_bytes(content[:-1])
    assert verify(folder) == 1
    assert f"references/{note.name}: it is no note of an atlas, or not as it was written" in capsys.readouterr().err
    build(folder)
    assert note.read_bytes() == content


def test_verify_of_nothing__says_what_to_do(tmp_path: Path, built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copyfile(built / "data_catalog.yaml", tmp_path / "data_catalog.yaml")
    assert verify(tmp_path) == 2
    assert "needs what a run has made: lfm-atlas run [missing_source]" in capsys.readouterr().err
    shutil.copytree(built / "atlas", tmp_path / "atlas")
    assert verify(tmp_path) == 0


def test_atlas_that_lost_its_manifest__is_published_again_where_the_store_knows_it(
    built: Path, tmp_path: Path, build: Any
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(built, folder)
    (folder / "atlas" / "manifest.json").unlink()

    assert build(folder).computed["atlas"] == 1
    assert contents(folder / "atlas") == contents(built / "atlas")


def test_second_run__is_refused_before_it_starts_anything(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lfm_tasks.stores.units.durable import StoreBusyError

    monkeypatch.setattr("lfm_atlas.prefect_server._start", lambda *_: pytest.fail("it started a server"))
    with locked(built / ".lfm-atlas", "first"), pytest.raises(StoreBusyError, match=r"'first' .*, started 20"):
        app(["run", str(built / "data_catalog.yaml")], result_action="return_value")


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (
            errno.ENOSPC,
            r"x: found no space left on the disk \(\d+\.\d MB free\), needs more: free some, then run again",
        ),
        (errno.EDQUOT, "no space left on the disk"),
        (errno.EFBIG, "found a limit on the size of files, needs a higher one"),
        (errno.EROFS, "found a disk that can only be read, needs one to write to"),
        (errno.EACCES, "x: permission denied: choose a place that you may write to"),
        (errno.EIO, "found a disk that fails"),
        (errno.ENOENT, "FileNotFoundError"),
    ],
)
def test_error_of_the_disk__is_a_sentence(number: int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=sentence):
        raise OSError(format_os_error(OSError(number, "what the system says", str(tmp_path / "x"))))


STOPPED = """
import multiprocessing, os, signal, sys, time
import lfm_atlas.console
multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()
lfm_atlas.console.STOP_SECONDS = 0.3
lfm_atlas.console.stop_on_signals()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    print("told", flush=True)
    time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize(("waits", "again"), [("0", False), ("60", False), ("60", True)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal__ends_in_order_or_in_time_or_at_once(number: signal.Signals, waits: str, again: bool) -> None:
    hear: Callable[[], object] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    command = [sys.executable, "-c", STOPPED, waits]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=hear)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "told\n"
    if again:
        process.send_signal(number)

    assert process.wait(20) in (128 + number, -number)
    assert process.stdout.read() == ""  # its child, which would hold it open for a minute, has ended, too
    process.stdout.close()
