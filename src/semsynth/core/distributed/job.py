"""A job: the one or several processes that work on one run folder, seen from one of them.

``with Job(...) as job`` is all that a training loop knows of signals, ranks, the lock of the
folder, heartbeats, hangs, ``status.json`` and log files. One process alone has a heartbeat, by
which another job sees that the folder is taken, and nothing else: no rendezvous, no votes, no
watchdog.
"""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from semsynth.core.devices import training_device
from semsynth.core.distributed.heartbeat import EVERY_SECONDS, Heartbeat, HeartbeatThread
from semsynth.core.distributed.pace import Pace
from semsynth.core.distributed.preemption import LocalVote, listening, stop_reason
from semsynth.core.distributed.rendezvous import (
    RendezvousWatchdog,
    init_process_group_with_names,
    is_connection_error,
)
from semsynth.core.distributed.run_lock import RunLock, release, wait_until_free
from semsynth.core.distributed.run_status import Status, new_status, read_status
from semsynth.core.distributed.stop_vote import StopVote
from semsynth.core.distributed.watchdog import SLOW_FACTOR, RankWatchdog
from semsynth.core.errors import Preempted, UserError
from semsynth.core.logging import log_to_file, logger

__all__ = ["Job", "RunLock"]

T = TypeVar("T")
# While rank 0 does these, the status says so.
_PUBLISHED_PHASES = ("validation", "preview", "scoring")


class Job:
    """One process's view of its job; a context in which all processes work together.

    In it SIGTERM and SIGUSR1 are noted, for ``should_stop``. An exception that leaves it ends the
    other processes too; where one line can say what happened, a UserError takes its place, on one
    rank; the others end with SystemExit.

    Attributes:
        folder: of the run.
        rank: of this process.
        world: processes.
        is_main: whether this is rank 0, which alone writes into the folder.
        accelerator: Accelerate's view of device and process group.
        lock: of the folder, after ``acquire``.
        status: what ``write_status`` publishes, after ``start``.
        current_step: steps that are done.
        checkpoint_seconds: how long writing a checkpoint takes: so much earlier than the time limit
            the job stops.
    """

    lock: RunLock
    status: Status

    def __init__(
        self,
        folder: Path,
        device: str,
        stall_seconds: float,
        to_user_error: Callable[[BaseException, Job], BaseException],
    ) -> None:
        """Nothing happens before the context is entered.

        Args:
            folder: of the run.
            device: as of ``pick_device``.
            stall_seconds: after which silence of a rank, or steps that do not continue, end a job
                of several processes.
            to_user_error: returns what to raise for an error of the work after ``start``: one line
                where it can be said in one, else the error itself.
        """
        self.folder, self._device, self._stall = folder, device, stall_seconds
        self._to_user_error = to_user_error
        self.current_step, self.checkpoint_seconds = 0, 0.0
        self._stack = ExitStack()
        self._rendezvous: RendezvousWatchdog | None = None
        self._watchdog: RankWatchdog | None = None
        self._heartbeat: HeartbeatThread | None = None
        self._stop_vote: StopVote | None = None
        self._pace: Pace | None = None

    def __enter__(self) -> Job:
        """Find the device, and the other processes where there are several.

        Raises:
            UserError: no such device, or something else has the port.
            RankLost: some rank did not come.
            Preempted: a signal came meanwhile.
        """
        try:
            self._stack.enter_context(listening())
            device = training_device(self._device)
            if int(os.environ.get("WORLD_SIZE", "1")) > 1:
                self._meet(device)
            # Accelerate keeps its settings for the life of the process; the next job has others.
            self._stack.callback(AcceleratorState._reset_state, reset_partial_state=True)
            self.accelerator = Accelerator(cpu=device.type == "cpu")
        except BaseException as error:
            raised = self._translate(error)
            self._stack.close()
            raise raised from (None if raised is error else error)
        self.rank = int(self.accelerator.process_index)
        self.world = int(self.accelerator.num_processes)
        self.is_main = bool(self.accelerator.is_main_process)
        return self

    def _meet(self, device: torch.device) -> None:
        # The watchdog comes first, and names who is missing; a collective's own timeout is for a
        # process whose watchdog hangs too.
        timeout = timedelta(seconds=self._stall * (SLOW_FACTOR + 1))
        self._rendezvous = RendezvousWatchdog()
        self._stack.callback(self._rendezvous.stop)
        init_process_group_with_names(device, timeout, self._rendezvous)
        self._rendezvous.begin_preparing(self._stall)

    @property
    def name(self) -> str:
        """How messages call this process."""
        return f"rank {self.rank} on {platform.node()}"

    @property
    def _members(self) -> Mapping[int, Heartbeat]:
        """The other processes, by rank, as they came to the start."""
        return {} if self._rendezvous is None else self._rendezvous.members

    @property
    def is_preparing(self) -> bool:
        """Whether the first phase after ``start`` has not been set yet."""
        return self._heartbeat is None or self._heartbeat.me.phase == "preparing"

    def run_on_rank0(self, work: Callable[[], T]) -> T:
        """Let rank 0 work, and give the result to all; where it fails, all end and it says why."""
        if self.world == 1:
            return work()
        answer: list[Any] = [None, False]  # the result, and whether rank 0 failed
        error: Exception | None = None
        if self.is_main:
            try:
                answer[0] = work()
            except Exception as found:
                error, answer[1] = found, True
        broadcast_object_list(answer)
        if error is not None:
            raise error
        if answer[1]:
            raise SystemExit(UserError.status)
        return answer[0]  # type: ignore[no-any-return]

    def same_error_on_all_ranks(self, error: UserError) -> BaseException:
        """Return what to raise where all processes found the same: one of them prints it."""
        return error if self.is_main else SystemExit(error.status)

    def check_same(self, facts: Mapping[str, Any]) -> None:
        """Check that all processes were started with the same facts, and in the same folder.

        Args:
            facts: nested values of JSON; their names are those of messages.

        Raises:
            UserError: on rank 0; names the first one that differs, and in what.
            SystemExit: on other ranks.
        """
        if self.world == 1:
            return
        # A folder may have other names on other nodes, and be the same where its path is followed.
        places = os.path.abspath(self.folder), os.path.realpath(self.folder)
        given: list[Any] = [{"--output": places[0], **facts}, places]
        broadcast_object_list(given)
        same = set(places) & set(given[1])
        mine = {"--output": given[1][0] if same else places[0], **facts}
        differs = difference_of(mine, given[0])
        found = gather_object([f"{self.name} was started with {differs}" if differs else ""])
        others = [line for line in found if line]
        if others:
            error = UserError(
                f"{others[0]}; start all processes with the same command, recipe and data"
            )
            raise self.same_error_on_all_ranks(error)

    def compare_pace(self, network: nn.Module | None) -> None:
        """From now on find out which of several processes the others wait for.

        Args:
            network: whose forward passes are a process's own work; None: it is sharded.
        """
        names = {rank: member.name for rank, member in self._members.items()}
        self._pace = Pace(self.world, {**names, self.rank: self.name})
        if network is not None:
            self._pace.watch(network)

    def log_pace(self, seconds: float, steps: int) -> None:
        """Compare a window of steps, where there are several processes; all of them call it."""
        if self._pace is not None:
            self._pace.exchange(self.accelerator, seconds, steps)

    def wait_until_free(self) -> None:
        """Make sure that no other job works in the folder; UserError: one does."""
        self.run_on_rank0(lambda: wait_until_free(self.folder))

    def acquire(self) -> None:
        """Make the folder this job's; another one that had it stops before its next write."""
        self._stack.callback(release, self.folder)
        self.lock = self.run_on_rank0(lambda: RunLock.acquire(self.folder))

    def start(self, total_steps: int) -> None:
        """Begin the work: from now on heartbeat, status and log file show it.

        Args:
            total_steps: after which the work is finished.
        """
        self.run_on_rank0(self.lock.remove_old_heartbeats)
        self.status = new_status(self.folder, total_steps, self.world)
        token = self.lock.token
        if self.world > 1:
            self._watchdog = RankWatchdog(
                self.folder, token, self.rank, self.world, self._stall, self._members
            )
            self._heartbeat = self._watchdog.heartbeat
        else:
            interval = min(EVERY_SECONDS, self._stall / 8)
            self._heartbeat = HeartbeatThread(self.folder, token, self.rank, interval)
        self._stack.enter_context(log_to_file(self.folder / "logs" / f"rank_{self.rank:04d}.log"))
        me = self._heartbeat.me
        logger.debug(f"rank {self.rank} of {self.world} on {me.host}, process {me.pid}")
        self.accelerator.wait_for_everyone()
        if self._rendezvous is not None:
            self._rendezvous.stop()  # the rank watchdog takes over
        self._heartbeat.start()
        if self.world > 1:
            self._stop_vote = StopVote(timedelta(seconds=self._stall * (SLOW_FACTOR + 1)))
        self._local_vote = LocalVote(self.rank)

    def step(self, done: int) -> None:
        """Set how many steps are done."""
        self.current_step = done
        if self._heartbeat is not None and self.is_preparing:
            self._heartbeat.me.step = done

    def phase(self, name: str) -> None:
        """Publish what is done now, ``step`` or ``checkpoint``, say; ``watchdog`` has the names."""
        assert self._heartbeat is not None, "start comes first"
        if self._pace is not None:
            self._pace.enter(name)
        self._heartbeat.set_phase(self.current_step, name)
        if name in _PUBLISHED_PHASES:
            self.status.phase = name
            self.write_status()

    def should_stop(self, before_first_step: bool = False) -> str:
        """Return why the work stops after this step, the same on all ranks; empty: it continues.

        Args:
            before_first_step: no step was done yet: wait for the other ranks' answer.
        """
        agreed = vote = self._local_vote.after_step(self.checkpoint_seconds)
        if self._stop_vote is not None:
            agreed = self._stop_vote.cast(vote)
            if before_first_step:
                agreed = self._stop_vote.result()
        if before_first_step:
            self._local_vote.forget_last_step()
        return stop_reason(agreed)

    def forget_step(self) -> None:
        """Do not count the step until now in how early the job stops: a signal interrupts it."""
        self._local_vote.forget_last_step()

    def write_status(self) -> None:
        """Write ``status`` for the outside, on rank 0."""
        if self.is_main:
            self.status.write(self.folder)

    def record_finished(self, step: int) -> None:
        """Let the status of a finished run say so: its process may have been killed just before."""
        if not self.is_main:
            return
        with suppress(UserError):
            status = read_status(self.folder)
            if status is not None and status.state != "finished":
                status.state, status.reason, status.step = "finished", "", step
                status.write(self.folder)

    def barrier(self) -> None:
        """Wait until all processes have come here."""
        if self._stop_vote is not None:
            self._stop_vote.result()
        self.accelerator.wait_for_everyone()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the job, give the folder back, and raise what the user is meant to read.

        Raises:
            UserError: in place of an error that one line can explain.
            SystemExit: where another rank prints that line.
        """
        raised = None if error is None else self._translate(error)
        if self._rendezvous is not None:
            self._rendezvous.begin_ending()
        try:
            if self._heartbeat is not None:
                self._end(raised)
            if raised is None:
                self.accelerator.end_training()
        finally:
            self._stack.close()
        if raised is not None and raised is not error:
            raise raised from error

    def _translate(self, error: BaseException) -> BaseException:
        """Return what to raise for an error: one line where it can be said in one."""
        if self._heartbeat is None:
            return error if self._rendezvous is None else self._rendezvous.diagnose(error)
        raised = self._to_user_error(error, self)
        if raised is not error:
            return raised
        if self._watchdog is not None and is_connection_error(error):
            return self._watchdog.diagnose(error)
        if not isinstance(error, UserError | SystemExit):
            logger.debug("".join(traceback.format_exception(error)))
        return error

    def _end(self, raised: BaseException | None) -> None:
        """Publish how this process ends: heartbeat, log and status."""
        assert self._heartbeat is not None
        if raised is None:
            self.status.state = "finished"
            self._heartbeat.stop()
        else:
            self.status.state = "preempted" if isinstance(raised, Preempted) else "failed"
            self.status.reason = self._heartbeat.fail(raised)
            logger.debug(f"stopped at step {self.current_step}: {self.status.reason}")
        if self.is_main and self.lock.is_held():
            self.write_status()


def difference_of(mine: Any, theirs: Any, where: str = "") -> str:
    """Say the first difference of two nested values of JSON from rank 0's; empty: there is none."""
    if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
        for name in sorted(mine.keys() | theirs.keys()):
            inner = f"{where}.{name}" if where else name
            if found := difference_of(mine.get(name), theirs.get(name), inner):
                return found
        return ""
    return "" if mine == theirs else f"{where} {mine}, rank 0 with {theirs}"
