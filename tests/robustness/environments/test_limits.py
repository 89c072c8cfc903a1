"""Limits of shells, control groups and file systems: a run works within them, or says which one stops it."""

import errno
import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.robustness.environments.commands import Ended, crowd, lfm_atlas
from tests.robustness.environments.conftest import add_to_catalog, files

RUN = ("run", "--no-prefect")
GROUPS = Path("/sys/fs/cgroup")


def as_root(what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"not run: {what} needs root")


def mounted(command: str, zoo: Path, *arguments: str, variables: dict[str, str] | None = None) -> Ended:
    """Run lfm-atlas in mounts of its own, which a shell command prepares."""
    as_root("a mount")
    before = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{command} && exec "$@"', "sh"]
    if subprocess.run([*before[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("not run: needs the right to mount")
    return lfm_atlas(*arguments, folder=zoo, before=before, variables=variables)


@pytest.mark.environments
def test_python_that_drops_assertions__is_refused(zoo: Path) -> None:
    for options, variables in ((["-O"], {}), (["-OO"], {}), ([], {"PYTHONOPTIMIZE": "1"})):
        refused = lfm_atlas(*RUN, folder=zoo, python=options, variables=variables)
        refused.check(2, "got python -O or PYTHONOPTIMIZE, expected Python without it", most_lines=1)
    assert not (zoo / ".lfm-atlas").exists()


@pytest.mark.environments
@pytest.mark.parametrize("mebibytes", [400, 1000, 2000])
def test_limit_on_address_space__is_named_before_anything_starts(mebibytes: int, zoo: Path) -> None:
    before = ["prlimit", f"--as={mebibytes << 20}"]
    for arguments in (RUN, ("run",), ("audit", "run")):
        lfm_atlas(*arguments, folder=zoo, before=before).check(2, f"got ulimit -v {mebibytes << 10}", most_lines=1)
    # The plan itself fits, but for a stack for each of many cores.
    one_thread = {"OPENBLAS_NUM_THREADS": "1"}
    lfm_atlas("plan", folder=zoo, before=before, variables=one_thread).check(0, "ulimit -v")


@pytest.mark.environments
@pytest.mark.parametrize("n_processes", [1, 4, 12])
def test_limit_on_processes__is_named(n_processes: int, zoo: Path) -> None:
    as_root("another user")
    # Every user of this machine starts a run; this one has no other process that would count.
    shutil.chown(zoo, 54321, 54321)
    for path in (zoo, *zoo.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o711)
    before = ["prlimit", f"--nproc={n_processes}", "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    variables = {"HOME": str(zoo), "OPENBLAS_NUM_THREADS": "1"}
    for arguments in (RUN, ("run",)):
        ended = lfm_atlas(*arguments, folder=zoo, before=before, variables=variables)
        if "No module named" in ended.err or "permission denied" in ended.err.lower():
            pytest.skip("not run: another user cannot read this Python or this repository")
        ended.check(2, f"got ulimit -u {n_processes} processes and threads", most_lines=1)


@pytest.mark.environments
def test_no_proc__is_said(zoo: Path) -> None:
    mounted("umount -l /proc", zoo, *RUN).check(2, "got no /proc, expected it", most_lines=1)


@pytest.mark.environments
@pytest.mark.parametrize(
    ("options", "prefect"),
    [
        ("size=16k,noexec", ()),
        ("size=64m,nr_inodes=1", ()),
        ("size=16k", ("--no-prefect",)),
        ("size=64m,noexec", ("--no-prefect",)),
    ],
)
def test_folder_for_temporary_files_that_is_full_or_noexec__changes_nothing(
    options: str, prefect: tuple[str, ...], zoo: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    prepare = f"mount -t tmpfs -o {options} tmpfs {scratch} && {{ head -c 1m /dev/zero > {scratch}/full; true; }}"
    ended = mounted(f"{{ {prepare}; }} 2>/dev/null", zoo, "run", *prefect, variables={"TMPDIR": str(scratch)})
    ended.check(0, "2 spaces, 0 failed")
    assert files(zoo / "atlas") == expected


@pytest.fixture
def group() -> Iterator[Callable[[int, float], tuple[list[str], list[str]]]]:
    """Make nested control groups with limits; return what puts a command into the inner one, and what is named."""
    as_root("a control group")
    made: list[Path] = []

    def make(n_bytes: int, n_cores: float) -> tuple[list[str], list[str]]:
        name = f"lfm-atlas-test-{os.getpid()}"
        is_2 = (GROUPS / "cgroup.controllers").exists()
        if is_2 and not {"cpu", "memory"} <= set((GROUPS / "cgroup.controllers").read_text(encoding="ascii").split()):
            pytest.skip("not run: the controllers cpu and memory are not delegated")
        trees = [GROUPS] if is_2 else [GROUPS / "memory", GROUPS / "cpu"]
        named = []
        try:
            for tree in trees:
                outer, inner = tree / name, tree / name / "inner"
                outer.mkdir()
                made.insert(0, outer)
                if is_2:
                    (tree / "cgroup.subtree_control").write_text("+cpu +memory", encoding="ascii")
                    (outer / "cgroup.subtree_control").write_text("+cpu +memory", encoding="ascii")
                inner.mkdir()
                made.insert(0, inner)
                limits = {"memory.max": f"{n_bytes}", "cpu.max": f"{round(n_cores * 1e5)} 100000"}
                if not is_2:
                    limits = {
                        "memory": {"memory.limit_in_bytes": f"{n_bytes}"},
                        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": f"{round(n_cores * 1e5)}"},
                    }[tree.name]
                for file, value in limits.items():
                    (outer / file).write_text(value, encoding="ascii")
                    if "period" not in file:
                        named.append(str(outer / file))
        except OSError as error:
            pytest.skip(f"not run: no right to make control groups here ({error.strerror})")
        enter = "; ".join(f"echo $$ > {tree / name / 'inner' / 'cgroup.procs'}" for tree in trees)
        return ["sh", "-c", f'{enter}; exec "$@"', "sh"], named

    yield make
    for folder in made:
        remove_group(folder)


def remove_group(folder: Path) -> None:
    """Remove a control group as soon as the last process in it has ended: it is busy until the kernel has noticed."""
    deadline = time.monotonic() + 30 * crowd()
    while True:
        try:
            folder.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@pytest.mark.environments
def test_control_groups__set_workers_and_memory_and_are_named(
    zoo: Path, expected: dict[str, bytes], group: Callable[[int, float], tuple[list[str], list[str]]]
) -> None:
    path = zoo / "data_catalog.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("cluster: {n_workers: 1}\n", ""), encoding="utf-8")
    before, named = group(3 << 30, 1.5)
    plan = lfm_atlas("plan", folder=zoo, before=before).check(0, "with 1 worker", "of 3.0 GiB")
    for place in named:
        assert place in plan.out
    lfm_atlas(*RUN, folder=zoo, before=before).check(0, "2 spaces, 0 failed")
    assert files(zoo / "atlas") == expected


CLOCK = """
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <time.h>
    int clock_gettime(clockid_t which, struct timespec *now) {
        int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
        int result = real(which, now);
        if (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) now->tv_sec = SECONDS;
        return result;
    }
"""
# What NFS without lock manager, and file systems that cannot exchange two folders, answer. (Zarr needs hard links.)
NETWORK = """
    #include <errno.h>
    int flock(int file, int operation) { if (LOCKS) return 0; errno = ENOLCK; return -1; }
    int renameat2(int a, const char *b, int c, const char *d, unsigned e) { errno = EINVAL; return -1; }
"""


def preloaded(source: str, folder: Path, **values: int) -> dict[str, str]:
    """Compile functions that stand in front of the C library's, and return the variable that puts them there."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("not run: needs a C compiler")
    (folder / "front.c").write_text(textwrap.dedent(source), encoding="ascii")
    defined = [f"-D{name}={value}" for name, value in values.items()]
    subprocess.run(
        [compiler, "-shared", "-fPIC", *defined, "-o", folder / "front.so", folder / "front.c", "-ldl"], check=True
    )
    return {"LD_PRELOAD": str(folder / "front.so")}


@pytest.mark.environments
def test_clock_before_1970__is_said_and_a_later_one_is_taken(
    zoo: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    for arguments in (RUN, ("plan",)):
        ended = lfm_atlas(*arguments, folder=zoo, variables=preloaded(CLOCK, tmp_path, SECONDS=-86400))
        ended.check(2, "got a clock before 1970, expected today's time", most_lines=1)
    ended = lfm_atlas(*RUN, "--no-dask", folder=zoo, variables=preloaded(CLOCK, tmp_path, SECONDS=86400))
    ended.check(0, "2 spaces, 0 failed")
    assert files(zoo / "atlas") == expected


@pytest.mark.environments
def test_file_system_without_locks__is_refused_with_a_sentence(zoo: Path, tmp_path: Path) -> None:
    ended = lfm_atlas(*RUN, folder=zoo, variables=preloaded(NETWORK, tmp_path, LOCKS=0))
    ended.check(1, "lock", most_lines=2)


@pytest.mark.environments
def test_file_system_without_exchange__gives_the_same_atlas_twice(
    zoo: Path, tmp_path: Path, expected: dict[str, bytes]
) -> None:
    variables = preloaded(NETWORK, tmp_path, LOCKS=1)
    lfm_atlas(*RUN, folder=zoo, variables=variables).check(0, "2 spaces, 0 failed")
    first = files(zoo / "atlas")
    assert first == expected
    # Another atlas takes its place, and the first comes back.
    add_to_catalog(zoo, "comparisons: {one: {sources: model0, targets: model1}}")
    lfm_atlas(*RUN, folder=zoo, variables=variables).check(0)
    assert files(zoo / "atlas") != first
    path = zoo / "data_catalog.yaml"
    path.write_text(path.read_text(encoding="utf-8").partition("comparisons:")[0], encoding="utf-8")
    lfm_atlas(*RUN, folder=zoo, variables=variables).check(0)
    assert files(zoo / "atlas") == first
    assert [name.name for name in zoo.iterdir() if name.name.startswith(".atlas")] == []
