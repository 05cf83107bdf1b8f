"""The exceptions that a user is meant to read, and the exit statuses they give."""

from __future__ import annotations

from collections.abc import Sequence

# EX_TEMPFAIL of sysexits.h: the run stopped itself with a checkpoint; start it again.
REQUEUE_STATUS = 75
# A process died or hung: the machine may be at fault; started again, the run goes on.
LOST_STATUS = 76


class UserError(Exception):
    """A mistake or a state of the machine that the user can mend.

    The message is one line that says what is wrong, where, and what to do. Commands print it as
    ``error: <message>`` on stderr and exit with ``status``, without a traceback.
    """

    status = 2


class Preempted(UserError):
    """The run was told to stop, or its time is nearly up: it wrote a checkpoint and ended."""

    status = REQUEUE_STATUS


class RankLost(UserError):
    """A process of the job died or hung; the message names its rank, host and step."""

    status = LOST_STATUS


class SilentExit(SystemExit):
    """This process ends without a word: another one of the job has it.

    Attributes:
        reason: what is known, in a line.
        said: whether the other one has said it already.
        lost: ranks that were found missing; the lowest one that is left says so.
    """

    def __init__(
        self, status: int, reason: str, said: bool = True, lost: Sequence[int] = ()
    ) -> None:
        """End with ``status``."""
        super().__init__(status)
        self.reason, self.said, self.lost = reason, said, list(lost)


def abbreviate(names: Sequence[str], most: int = 10, between: str = ", ") -> str:
    """Return the first ``most`` of them, for a message, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + rest
