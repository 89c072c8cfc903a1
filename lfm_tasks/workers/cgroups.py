"""CPU quota and memory limit of this process by Linux control groups, versions 1 and 2.

SLURM, systemd and containers put a process into a group, and that group into others. A limit of any group on the way up
holds for all below, so the smallest one counts. `resources.py` makes workers and their memory of it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Limit:
    """The most of something that this process may have, and its source: a file, or words."""

    value: float
    said_by: str


def cpu_quota(root: Path = Path("/")) -> Limit | None:
    """Return how many cores the groups of this process may keep busy, such as 1.5; None: no group says.

    Parameters
    ----------
    root
        The folder in which ``proc`` and ``sys`` lie.
    """
    return _smallest(root, "cpu", [("cpu.max", _cpu_max), ("cpu.cfs_quota_us", _cfs_quota)])


def group_memory(root: Path = Path("/")) -> Limit | None:
    """Return how many bytes the groups of this process may take together; None: no group says.

    ``memory.high`` counts as well: above it the kernel lets the processes of a group hardly go on.
    """
    files = [("memory.max", _bytes), ("memory.high", _bytes), ("memory.limit_in_bytes", _bytes)]
    # In a container with version 1 the groups above are out of sight; this file has their smallest limit.
    return _smallest(root, "memory", [*files, ("memory.stat", _hierarchical_limit)])


_Reader = Callable[[Path], float | None]


def _smallest(root: Path, controller: str, files: list[tuple[str, _Reader]]) -> Limit | None:
    smallest: Limit | None = None
    groups = list(_groups(root, controller))
    # File by file: of equal values the one that somebody has set is named, not what the kernel derives from it.
    for name, read in files:
        for folder in groups:
            try:
                value = read(folder / name)
            except (OSError, ValueError):  # not there, or not understood: no limit
                continue
            if value is not None and (smallest is None or value < smallest.value):
                smallest = Limit(value, f"/{(folder / name).relative_to(root)}")
    return smallest


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of each group that this process is in and that a controller may limit, from the inside out."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        # Without /proc: what a container of its own namespace has.
        yield from (root / "sys/fs/cgroup", root / "sys/fs/cgroup" / controller)
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in mounts:
            fields, _, source = mount.partition(" - ")
            kind, _, options = source.split(" ", 2)
            is_it = kind == "cgroup2" if not controllers else kind == "cgroup" and controller in options.split(",")
            if is_it:
                above, place = fields.split(" ")[3:5]
                yield from _upwards(root / place.lstrip("/"), PurePosixPath(above), PurePosixPath(path))


def _upwards(mount: Path, mounted: PurePosixPath, path: PurePosixPath) -> Iterator[Path]:
    """Yield the folder of a group and of all above it, as far as they are mounted.

    Parameters
    ----------
    mount
        Where the tree of groups is mounted.
    mounted
        The group that is mounted there: in a container often its own.
    path
        The group. One that is outside of what is mounted, or above it (``..``), is out of sight.
    """
    inside = path.is_relative_to(mounted) and ".." not in path.parts
    folder = mount / path.relative_to(mounted) if inside else mount
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _bytes(path: Path) -> float | None:
    text = path.read_text(encoding="ascii").strip()
    return None if text == "max" else int(text)


def _hierarchical_limit(path: Path) -> float | None:
    for line in path.read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(" ")
        if name == "hierarchical_memory_limit":
            return int(value)
    return None


def _cpu_max(path: Path) -> float | None:
    quota, period = path.read_text(encoding="ascii").split()
    return None if quota == "max" else int(quota) / int(period)


def _cfs_quota(path: Path) -> float | None:
    quota = int(path.read_text(encoding="ascii"))
    period = int(path.with_name("cpu.cfs_period_us").read_text(encoding="ascii"))
    return quota / period if quota > 0 else None
