"""The exception and the warning that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a state of the machine that the user can mend.

    The message is one line that says what is wrong, where, and what to do. Commands print it as
    ``error: <message>`` on stderr and exit with status 2, without a traceback.
    """


class SemsynthWarning(UserWarning):
    """Something that works, but perhaps not as the user thinks; the message is one line."""
