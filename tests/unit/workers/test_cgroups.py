"""Control groups as SLURM, systemd and containers make them, in folders that look like ``/proc`` and ``/sys``."""

from pathlib import Path

import pytest

from lfm_tasks.workers.cgroups import Limit, cpu_quota, group_memory

MIB = 1 << 20
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)


def system(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """Write a root folder with these groups of the process, mounts, and files of the tree of groups."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_version_2__the_smallest_limit_on_the_way_up_holds(tmp_path: Path) -> None:
    job = "sys/fs/cgroup/system.slice/slurmstepd.scope/job_7"
    root = system(
        tmp_path, "0::/system.slice/slurmstepd.scope/job_7/step_0/user/task_0\n", V2,
        {
            f"{job}/step_0/user/task_0/memory.max": "max\n",
            f"{job}/step_0/memory.max": f"{900 * MIB}\n",
            f"{job}/memory.max": f"{700 * MIB}\n",
            "sys/fs/cgroup/system.slice/memory.max": f"{800 * MIB}\n",
            f"{job}/cpu.max": "150000 100000\n",
            f"{job}/step_0/cpu.max": "max 100000\n",
            # A group beside ours.
            "sys/fs/cgroup/user.slice/memory.max": "1\n",
        },
    )  # fmt: skip
    assert group_memory(root) == Limit(700 * MIB, f"/{job}/memory.max")
    assert cpu_quota(root) == Limit(1.5, f"/{job}/cpu.max")


def test_version_2__in_a_container_the_root_of_its_namespace_has_the_limits(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.high": f"{64 * MIB}\n"}
    root = system(tmp_path, "0::/\n", V2, {**files, "sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert group_memory(root) == Limit(64 * MIB, "/sys/fs/cgroup/memory.high")
    assert cpu_quota(root) == Limit(0.5, "/sys/fs/cgroup/cpu.max")


def test_version_1__controllers_have_groups_of_their_own(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "4:memory:/slurm/uid_1000/job_7/step_0\n2:cpuacct,cpu:/docker/abc\n1:name=systemd:/init.scope\n0::/\n", V1,
        {
            "sys/fs/cgroup/memory/slurm/uid_1000/job_7/step_0/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/slurm/uid_1000/job_7/memory.limit_in_bytes": f"{300 * MIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us": "100000\n",
        },
    )  # fmt: skip
    said_by = "/sys/fs/cgroup/memory/slurm/uid_1000/job_7/memory.limit_in_bytes"
    assert group_memory(root) == Limit(300 * MIB, said_by)
    assert cpu_quota(root) == Limit(2.5, "/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us")


def test_version_1__groups_above_a_container_are_known_by_their_smallest_limit(tmp_path: Path) -> None:
    # Docker mounts the container's own group; /proc names it by its whole path.
    mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    files = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.stat": f"cache 0\nhierarchical_memory_limit {200 * MIB}\nswap 0\n",
    }
    root = system(tmp_path, "4:memory:/docker/abc\n", mounts, files)
    assert group_memory(root) == Limit(200 * MIB, "/sys/fs/cgroup/memory/memory.stat")


def test_version_1__the_limit_itself_is_named_where_it_is_in_sight(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{200 * MIB}\n",
        "sys/fs/cgroup/memory/job/step/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/job/step/memory.stat": f"hierarchical_memory_limit {200 * MIB}\n",
    }
    root = system(tmp_path, "4:memory:/job/step\n", V1, files)
    assert group_memory(root) == Limit(200 * MIB, "/sys/fs/cgroup/memory/job/memory.limit_in_bytes")


@pytest.mark.parametrize("group", ["/../../elsewhere", "/not/mounted/here"])
def test_group_that_is_out_of_sight__counts_as_what_is_mounted(tmp_path: Path, group: str) -> None:
    mounts = "30 23 0:26 /container /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    root = system(tmp_path, f"0::{group}\n", mounts, {"sys/fs/cgroup/memory.max": f"{MIB}\n"})
    assert group_memory(root) == Limit(MIB, "/sys/fs/cgroup/memory.max")


def test_no_proc__leaves_the_root_of_the_tree(tmp_path: Path) -> None:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        (tmp_path / "sys/fs/cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / name).write_text(f"{MIB}\n", encoding="utf-8")
    assert group_memory(tmp_path) == Limit(MIB, "/sys/fs/cgroup/memory.max")


@pytest.mark.parametrize("text", ["", "much\n", "1 2 3\n"])
def test_files_that_nobody_understands__are_no_limit(tmp_path: Path, text: str) -> None:
    root = system(tmp_path, "0::/\n", V2, {"sys/fs/cgroup/memory.max": text, "sys/fs/cgroup/cpu.max": text})
    assert group_memory(root) is None
    assert cpu_quota(root) is None
