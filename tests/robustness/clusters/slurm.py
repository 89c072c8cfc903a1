"""A single-node SLURM on loopback: munged, slurmctld and slurmd, with all their files in one folder."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.robustness.clusters.conftest import Processes, needs, wait_for

SETTINGS = """
ClusterName=lfm
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=6000 State=UNKNOWN
PartitionName=zoo Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


@contextmanager
def slurm(folder: Path, processes: Processes) -> Iterator[dict[str, str]]:
    """Give the environment of programs that talk to a SLURM of our own; skip the test where it cannot be started."""
    needs("munged", "slurmctld", "slurmd", "sbatch", "scancel", root=True)
    folder.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().split(".")[0]
    controller, node = _free_port(), _free_port()
    settings = SETTINGS.format(folder=folder, host=host, controller=controller, node=node, cores=os.cpu_count())
    (folder / "slurm.conf").write_text(settings)
    environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{os.environ['PATH']}:/usr/sbin"}
    munge = [f"--{name}={folder}/munge.{end}" for name, end in MUNGE_FILES.items()]
    processes.start("munged", "munged", "--foreground", "--force", *munge, **environment)
    wait_for((folder / "munge.socket").exists, "munged's start")
    processes.start("slurmctld", "slurmctld", "-D", **environment)
    processes.start("slurmd", "slurmd", "-D", "-N", host, **environment)
    try:
        wait_for(lambda: "idle" in _said(environment, "sinfo", "-h", "-o", "%T"), "the node's arrival")
        yield environment
    finally:
        _said(environment, "scancel", "--user", "root")


MUNGE_FILES = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}


def jobs(environment: dict[str, str]) -> list[str]:
    """Return the ids of the jobs that run."""
    return _said(environment, "squeue", "-h", "-t", "R", "-o", "%i").split()


def cancel(environment: dict[str, str], job: str) -> None:
    """Cancel a job, at once."""
    _said(environment, "scancel", "--signal=KILL", "--full", job)
    _said(environment, "scancel", job)


def _said(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    ).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
