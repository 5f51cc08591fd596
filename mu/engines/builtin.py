"""The engines that come with mu: `lambda`, and `local` with the process that it needs."""

from collections.abc import Callable

from twisted.internet.defer import Deferred, DeferredList

from mu.aws.logs import aws_ending_of, aws_log_of
from mu.config import Config
from mu.engines.connections import Timeouts
from mu.engines.lambda_api import FindCredentials, LambdaEngine, ReadEnding, ReadLog
from mu.engines.local.logs import local_ending_of, local_log_of
from mu.engines.local.process import LocalEngineProcess
from mu.engines.reactors import IClientReactor, ILocalReactor
from mu.engines.routes import Route, aws_credentials, aws_route
from mu.engines.signing import Credentials


class EngineReactor(ILocalReactor, IClientReactor):
    """What the engines need from the reactor."""


def engine_alone(
    config: Config, reactor: IClientReactor, local: tuple[int, Credentials] | None = None
) -> LambdaEngine:
    """Return the engine `lambda`, or that of a running local engine, given its port and key."""
    if local is None:
        return LambdaEngine(
            "lambda", reactor, aws_route, aws_credentials(), _timeouts(config, "lambda")
        )
    port, key = local
    return LambdaEngine(
        "local",
        reactor,
        lambda region: Route(f"http://127.0.0.1:{port}", region),
        lambda expired: key,
        _timeouts(config, "local"),
    )


def _timeouts(config: Config, name: str) -> Timeouts:
    launch = config.launch
    first_byte_s = launch.timeout_s if name == "local" else launch.first_byte_s
    return Timeouts(launch.timeout_s, first_byte_s, launch.idle_s, launch.keepalive_s)


class BuiltinEngines:
    """`by_name` has those that the configuration switches on."""

    def __init__(
        self, config: Config, local_key: Credentials | None, reactor: EngineReactor
    ) -> None:
        """`local_key` is None if there is no local engine."""
        self._config = config
        self._reactor = reactor
        self._process: LocalEngineProcess | None = None
        self._port = 0
        self.by_name = {
            "lambda": self._engine(
                "lambda", aws_route, aws_credentials(), aws_log_of, aws_ending_of
            )
        }
        if local_key is not None:
            logs = config.home / "local" / "logs"
            self.by_name["local"] = self._engine(
                "local",
                lambda region: Route(f"http://127.0.0.1:{self._port}", region),
                lambda expired: local_key,
                lambda function, region, since: local_log_of(logs, function, since),
                lambda function, region, request, since: local_ending_of(logs, function, request),
                lambda: self._process is not None and self._process.info is not None,
            )

    async def start_local(self) -> int:
        """Find or start the process of the local engine; return its port."""
        local = self._config.local
        self._process = LocalEngineProcess(
            self._config.home,
            local.port,
            reactor=self._reactor,
            concurrency=local.concurrency,
            invoke_rate=local.invoke_rate,
            linger_s=local.linger_s,
            faults=str(local.faults),
            allowed_hosts=self._config.mu.allowed_hosts,
            s3_port=self._config.s3.port,
            told=self._told,
            s3_profile="" if self._config.s3.profile == "none" else self._config.s3.profile,
        )
        self._port = await self._process.start()
        return self._port

    def _told(self, launch: str, why: str) -> None:
        """Pass on that the local engine says that the worker of a launch has ended."""
        listener = self.by_name["local"].listener
        if listener is not None:
            listener.ended(launch, why)

    @property
    def local_process(self) -> LocalEngineProcess | None:
        """The process of the local engine; None: it was not started."""
        return self._process

    def stop(self, leave_local: bool) -> Deferred[list[tuple[bool, None]]]:
        """Close all connections, and stop the local engine or leave it to the next daemon."""
        ending: list[Deferred[None]] = [engine.stop() for engine in self.by_name.values()]
        if self._process is not None and leave_local:
            self._process.leave()
        elif self._process is not None:
            ending.append(self._process.stop())
        return DeferredList(ending, consumeErrors=True)

    def _engine(
        self,
        name: str,
        find_route: Callable[[str], Route],
        credentials: FindCredentials,
        read_log: ReadLog,
        read_ending: ReadEnding,
        is_up: Callable[[], bool] = lambda: True,
    ) -> LambdaEngine:
        local = name == "local"
        return LambdaEngine(
            name,
            self._reactor,
            find_route,
            credentials,
            _timeouts(self._config, name),
            growth=0 if local else self._config.launch.growth,
            is_up=is_up,
            read_log=read_log,
            read_ending=read_ending,
            on_this_machine=local,
            regional=not local,
        )
