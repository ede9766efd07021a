"""What can go wrong at the edge, each with an HTTP status, a code for programs and a hint for people."""

from __future__ import annotations


class LivemimicError(Exception):
    """`message` says what is wrong, `hint` what to do about it."""

    status = 500

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class SignalingError(LivemimicError):
    status = 400


class Unauthorized(LivemimicError):
    status = 401


class NotFound(LivemimicError):
    status = 404


class Conflict(LivemimicError):
    status = 409


class TooLarge(LivemimicError):
    status = 413


class BadInput(LivemimicError):
    status = 422


class WorkerLost(LivemimicError):
    status = 503


class Busy(LivemimicError):
    """Too much to do at the moment; try again after `retry_after_s`."""

    status = 503

    def __init__(self, code: str, message: str, hint: str = "", *, retry_after_s: float = 5.0) -> None:
        super().__init__(code, message, hint)
        self.retry_after_s = retry_after_s


class SessionFull(Busy):
    """No room for another session."""
