"""Requests that are refused: an exception with the status of the answer."""

from __future__ import annotations

from semsynth.core.errors import UserError


class Refused(UserError):
    """A request that is not done; the answer is its line, as ``{"error": ...}``.

    Any other ``UserError`` of a request is answered with status 400.

    Attributes:
        http: the status of the answer.
    """

    def __init__(self, message: str, http: int = 400) -> None:
        """Say why, in one line."""
        super().__init__(message)
        self.http = http
