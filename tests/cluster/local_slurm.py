"""A real SLURM of two nodes on the loopback address: its configuration, daemons and commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "salloc", "srun", "scontrol", "scancel")
# Daemons live where a user's PATH need not look.
SEARCH = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin{os.pathsep}/sbin"
NODES = ("node1", "node2")

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=8
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
GresTypes=gpu
MailProg=/bin/true
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=20
PropagateResourceLimits=NONE
NodeName=DEFAULT CPUs=4 RealMemory=1000 Gres=gpu:2
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 GraceTime=60
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=60
"""


@dataclass
class Slurm:
    """The cluster: its folder, and the environment in which its commands run."""

    folder: Path
    env: dict[str, str]

    def run(self, *words: str | Path, cwd: Path | None = None, **env: str) -> str:
        """Run a command of SLURM and return what it printed."""
        done = subprocess.run(
            list(map(str, words)), capture_output=True, text=True, timeout=300, cwd=cwd,
            env={**self.env, **env},
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def sbatch(self, *words: str | Path, cwd: Path, **env: str) -> str:
        """Submit a job and return its number."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd, **env).strip()

    def facts(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", "-o", job)))

    def wait_for(self, job: str, *states: str, restarts: int = 0, seconds: float = 400) -> None:
        """Wait until the job is in one of the states, restarted at least so often."""
        end = time.monotonic() + seconds
        while True:
            facts = self.facts(job)
            if facts["JobState"] in states and int(facts["Restarts"]) >= restarts:
                return
            assert time.monotonic() < end, f"{facts}\n{self.logs()}"
            time.sleep(0.3)

    def logs(self) -> str:
        """The ends of the daemons' logs, for a test that failed."""
        texts = [path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log"))]
        return "\n".join("\n".join(text.splitlines()[-20:]) for text in texts)


def start(words: list[str | Path], env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(map(str, words)), env=env, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip


def start_all(folder: Path, env: dict[str, str]) -> list[subprocess.Popen[bytes]]:
    munge = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("socket", "seed-file")]
    munge += [f"--key-file={folder}/munge.key", f"--log-file={folder}/munged.log"]
    munge += [f"--pid-file={folder}/munged.pid", "--foreground", "--force"]
    daemons = [start([shutil.which("munged", path=SEARCH) or "munged", *munge], env)]
    conf = folder / "slurm.conf"
    daemons.append(start(["slurmctld", "-D", "-c", "-f", conf], env))
    for node in NODES:
        (folder / node).mkdir()
        daemons.append(start(["slurmd", "-D", "-f", conf, "-N", node], env))
    return daemons


def wait_until_idle(cluster: Slurm) -> None:
    end = time.monotonic() + 60
    while True:
        words = ["sinfo", "--noheader", "--Node", "--partition=main", "--format=%t"]
        done = subprocess.run(words, capture_output=True, text=True, env=cluster.env)
        if done.stdout.split() == ["idle", "idle"]:
            return
        assert time.monotonic() < end, f"{done.stdout}{done.stderr}\n{cluster.logs()}"
        time.sleep(0.2)
