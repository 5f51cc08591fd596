"""Who may do what at the control port: the tokens of the home, and the sessions of browsers.

A browser never sees a token. `mu open` asks for a one-time code and puts it into the fragment of a URL,
which browsers do not send; the page exchanges it for a session. A session is a text that says what it
allows and until when, signed with a key of the home and with the token that it was obtained with.
So it survives a restart of the daemon, and ends when that token is replaced.
"""

import hmac
import math
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mu.config import ControlSection
from mu.home import Tokens

MOST_CODES = 100
"""How many codes of each token may wait to be used; the oldest are forgotten first."""


class Rights(Enum):
    """What a client may do."""

    READ = "read"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A session as the page gets it; `expires` is in seconds since the epoch."""

    bearer: str
    rights: Rights
    expires: int


class Access:
    """Knows what a bearer allows, and gives sessions to browsers."""

    def __init__(
        self, config: ControlSection, tokens: Tokens, key: str, now: Callable[[], float]
    ) -> None:
        """`key` signs sessions; `now` returns the time in seconds since the epoch."""
        self._key = key.encode("utf-8")
        self._now = now
        # By the token that asked, the oldest first: what each allows, and when it expires.
        self._codes: dict[Rights, dict[str, tuple[Rights, float]]] = {one: {} for one in Rights}
        self._tokens: dict[Rights, bytes] = {}
        self.reload(config, tokens)

    def reload(self, config: ControlSection, tokens: Tokens) -> bool:
        """Use these from now on, and return whether a token is another one than before.

        The sessions and codes of a token that was replaced end.
        """
        self._config = config
        known = {
            Rights.CONTROL: tokens.control.encode("ascii"),
            Rights.READ: tokens.read.encode("ascii"),
        }
        changed = known != self._tokens
        if changed:
            for codes in self._codes.values():
                codes.clear()  # who had an old token must not get a session of the new one
        self._tokens = known
        return changed

    def of_token(self, bearer: bytes) -> Rights | None:
        """Return what a token allows; None: it is none of ours."""
        for rights, token in self._tokens.items():
            if hmac.compare_digest(bearer, token):
                return rights
        return None

    def of(self, bearer: bytes) -> Rights | None:
        """Return what a token or a session allows; None: it is unknown, or has expired."""
        return self.of_token(bearer) or self._of_session(bearer)

    def until(self, bearer: bytes) -> float:
        """Return when what a known bearer allows ends, in seconds since the epoch; inf: it does not."""
        if self.of_token(bearer) is not None:
            return math.inf
        return float(bearer.split(b".")[1])

    def new_code(self, rights: Rights, of: Rights | None = None) -> str:
        """Return a code that can be exchanged once, within `code_s`, for a session with these rights.

        `of` is what the token allows that asks for it; None: the same.
        """
        code, codes = secrets.token_urlsafe(32), self._codes[of or rights]
        codes[code] = rights, self._now() + self._config.code_s
        while len(codes) > MOST_CODES:
            del codes[next(iter(codes))]
        return code

    def exchange(self, code: str) -> BrowserSession | None:
        """Return a new session for a code; None: it is unknown, was used, or is too old."""
        unknown = Rights.READ, 0.0
        codes = next((one for one in self._codes.values() if code in one), {})
        rights, until = codes.pop(code, unknown)
        if until <= self._now():
            return None
        expires = int(self._now() + self._config.session_s)
        told = f"{rights.value}.{expires}"
        return BrowserSession(f"{told}.{self._signature(told, rights)}", rights, expires)

    def _of_session(self, bearer: bytes) -> Rights | None:
        told, _, signature = bearer.decode("latin-1").rpartition(".")
        name, _, expires = told.partition(".")
        for rights in Rights:
            known = self._signature(told, rights).encode("ascii")
            if rights.value == name and hmac.compare_digest(signature.encode("latin-1"), known):
                return rights if int(expires) > self._now() else None
        return None

    def _signature(self, told: str, rights: Rights) -> str:
        signed = b"%b %b" % (self._tokens[rights], told.encode("latin-1"))
        return urlsafe_b64encode(hmac.digest(self._key, signed, "sha256")).decode("ascii")
