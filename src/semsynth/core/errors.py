"""The exceptions that a user is meant to read, and the exit statuses they give."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

# EX_TEMPFAIL of sysexits.h: the run stopped itself with a checkpoint; start it again.
REQUEUE_STATUS = 75
# A process died or hung: the machine may be at fault; started again, the run resumes.
LOST_STATUS = 76
# How libraries say it: PyTorch (CPU, CUDA), OpenCV, C++, the system, Python's threads, the linker,
# oneDNN.
_NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad_alloc|cannot allocate memory"
    r"|insufficient memory|can't start new thread|failed to map segment"
    r"|could not (create|execute) a (primitive|memory)",
    re.I,
)


class UserError(Exception):
    """A mistake, or a state of the machine, that the user can fix.

    The message is one line that says what is wrong, where, and what to do. Commands print it as
    ``error: <message>`` on stderr and exit with ``status``, without a traceback.
    """

    status = 2


class Preempted(UserError):
    """A signal came, or the time limit is near: the run wrote a checkpoint and ended."""

    status = REQUEUE_STATUS


class RankLost(UserError):
    """A process of the job died or hung; the message names its rank, host and step."""

    status = LOST_STATUS


class Unavailable(Exception):
    """Something that is not everywhere is missing here; the message is the reason.

    A report gives the reason; who cannot do without turns it into a ``UserError``.
    """


class SilentExit(SystemExit):
    """This process prints nothing as it ends: another one of the job does.

    Attributes:
        reason: what is known, in a line.
        reported: whether the other one has printed it already.
        lost: ranks that were found missing; the lowest rank that is left prints the line.
    """

    def __init__(
        self, status: int, reason: str, reported: bool = True, lost: Sequence[int] = ()
    ) -> None:
        """End with ``status``."""
        super().__init__(status)
        self.reason, self.reported, self.lost = reason, reported, list(lost)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether there was no memory left for what was asked for: no bug, and no bad file."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return not isinstance(error, UserError) and bool(_NO_MEMORY.search(str(error)))


def abbreviate(names: Sequence[str], most: int = 10, between: str = ", ") -> str:
    """Return the first ``most`` of them, for a message, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + rest
