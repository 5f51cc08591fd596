"""The keys that functions get in place of a role if they are not in the environment: a profile's.

The daemon finds its keys as botocore does, in ~/.aws, too. Functions cannot: they have another home, and
often no rights to the files or the login that a profile needs. So this process looks for them, and
each invocation gets what was found.
"""

import os
from collections.abc import Mapping

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from mu.engines.reactors import ILocalReactor

START_S = 10.0
"""How long the engine's start waits for the keys: a profile may ask a service on the network."""
REFRESH_S = 30.0
"""How old the keys may be, in seconds, when an invocation starts to look for newer ones."""
PROBLEM = "MU_NO_AWS_KEYS"
"""The variable that tells functions why there are no keys."""

_ELSEWHERE = ("env", "container-role", "iam-role")
"""Where a function itself looks for keys, with the same result."""
_FILES = {
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
    "AWS_CONFIG_FILE": "~/.aws/config",
}


class ProfileKeys:
    """Looks for keys in a thread. `environment` is this process's."""

    log = Logger("mu.engines.local")

    def __init__(self, environment: Mapping[str, str], reactor: ILocalReactor) -> None:
        self._environment, self._reactor = environment, reactor
        self._variables: dict[str, str] = {}
        self._told = ""
        self._next = 0.0
        self._looking = False
        self._finder = Finder(environment)

    def start(self) -> Deferred[None]:
        """Look for keys; the Deferred fires when they were found, or not, or after START_S."""
        started: Deferred[None] = Deferred()
        looking = self._look()
        if looking is None:
            started.callback(None)
        else:
            looking.chainDeferred(started)
        started.addTimeout(START_S, self._reactor)
        return started.addErrback(lambda _: self.log.warn("the keys for functions take long"))

    def variables(self) -> dict[str, str]:
        """Return the variables for an invocation, at once; newer ones are looked for meanwhile."""
        if self._reactor.seconds() >= self._next:
            self._look()
        return self._variables

    def _look(self) -> Deferred[None] | None:
        if self._looking or not self._finder.has_profile():
            return None
        self._looking = True
        pool = self._reactor.getThreadPool()
        looking = deferToThreadPool(self._reactor, pool, self._finder.find)
        return looking.addCallbacks(self._found, self._failed)

    def _found(self, found: tuple[dict[str, str], str]) -> None:
        self._variables, told = found
        self._looking, self._next = False, self._reactor.seconds() + REFRESH_S
        if told != self._told:
            self._told = told
            self.log.info("{told}", told=told)

    def _failed(self, failure: Failure) -> None:
        why = f"the profile's keys cannot be had: {failure.getErrorMessage()}"
        self._found(({**self._variables, PROBLEM: why}, f"functions get no new AWS keys: {why}"))


class Finder:
    """Asks botocore. Its methods may block."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._session: object = None
        self._files: list[float] = []

    def has_profile(self) -> bool:
        """Return whether there may be keys that functions would not find themselves."""
        if "AWS_ACCESS_KEY_ID" in self._environment:
            return False
        named = {"AWS_PROFILE", "AWS_DEFAULT_PROFILE"} & self._environment.keys()
        return bool(named) or any(self._changed())

    def find(self) -> tuple[dict[str, str], str]:
        """Return variables with the keys, and a sentence that says whose they are.

        Raises what botocore raises.
        """
        from botocore.session import Session

        files = self._changed()
        session = self._session
        if not isinstance(session, Session) or files != self._files:
            session = Session()
            resolver = session.get_component("credential_provider")
            for name in _ELSEWHERE:
                resolver.remove(name)
            self._session, self._files = session, files
        found = session.get_credentials()
        profile = session.get_config_variable("profile") or "default"
        if found is None:
            self._session = None  # there may be some next time
            why = f"there are none in profile {profile}"
            return {PROBLEM: why}, f"functions get no AWS keys: {why}"
        keys = found.get_frozen_credentials()
        variables = {
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_SESSION_TOKEN": keys.token,
        }
        given = {name: value for name, value in variables.items() if value}
        return given, f"functions get the AWS keys of profile {profile} ({found.method})"

    def _changed(self) -> list[float]:
        """Return when the files changed that profiles are in; 0: there is none."""
        times = []
        for name, usual in _FILES.items():
            try:
                path = os.path.expanduser(self._environment.get(name, usual))
                times.append(os.stat(path).st_mtime)
            except OSError:
                times.append(0.0)
        return times
