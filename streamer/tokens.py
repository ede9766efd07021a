"""Session tokens: 256 random bits, compared in constant time, valid for a while after the last sign of life.

Sans-I/O. Only a digest is kept, so that neither a log of objects nor a memory dump of the registry gives tokens away.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from streamer.errors import Unauthorized


def new_session_id() -> str:
    return secrets.token_hex(8)


class SessionToken:
    """One session's credential. `text` is handed out once, by `issue`."""

    def __init__(self, digest: bytes, ttl_s: float, now_s: float) -> None:
        self._digest = digest
        self._ttl_s = ttl_s
        self._expires_s = now_s + ttl_s

    @classmethod
    def issue(cls, ttl_s: float, now_s: float) -> tuple[str, SessionToken]:
        text = secrets.token_urlsafe(32)
        return text, cls(_digest(text), ttl_s, now_s)

    def extend(self, alive_s: float) -> None:
        """The session gave a sign of life at this time."""
        self._expires_s = max(self._expires_s, alive_s + self._ttl_s)

    def check(self, presented: str | None, now_s: float) -> None:
        """Raises Unauthorized unless the presented text is this token and it has not expired."""
        if not presented:
            raise Unauthorized("token_missing", "this request needs the session's token", "send it as 'Authorization: Bearer TOKEN'")
        if not hmac.compare_digest(_digest(presented), self._digest):
            raise Unauthorized("token_wrong", "this token does not belong to this session", "use the one of POST /v1/sessions")
        if now_s >= self._expires_s:
            raise Unauthorized("token_expired", "the session's token has expired", "create a new session")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
