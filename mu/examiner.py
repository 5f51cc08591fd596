"""The checks of `mu doctor` as the daemon makes them: with its own credentials and configuration."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

from mu.config import Config
from mu.engines.signing import Credentials
from mu.registry import Registry, examiners_of
from mu.strict_json import JSON


class Examiner:
    """Makes the checks. They take seconds and block, so call it in a thread."""

    def __init__(
        self,
        config: Callable[[], Config],
        source: Path | None,
        local_key: Credentials | None,
        ports: Mapping[str, int],
        registry: Registry,
    ) -> None:
        """`config` returns the current configuration, `source` is its file, `local_key` signs
        requests to the local engine, and `ports` are the daemon's, by name.
        """
        self._config = config
        self._source = str(source or "the defaults")
        self._local_key = local_key
        self._ports = ports
        self._registry = registry

    def __call__(self, given: Mapping[str, object]) -> list[JSON]:
        """Return the findings. Raises FieldError for what was given."""
        # boto3 takes long to import, and most daemons are never asked.
        from mu.doctor import examine
        from mu.doctor.case import Needs, no_local_engine, read_case
        from mu.functions.aws import AwsClients, LocalClients

        port, key = self._ports.get("local"), self._local_key
        local = (
            no_local_engine(
                "the local engine is disabled: [local] enabled = no", f"see {self._source}"
            )
            if port is None or key is None
            else LocalClients(port, key.access_key, key.secret_key)
        )
        needs = [
            Needs(one.name, one.uses_relay, one.all_at_once)
            for one in self._registry.pipelines.values()
        ]
        config = self._config()
        aws = AwsClients(may_prompt=False, s3=config.s3.place)
        plugged = examiners_of(self._registry, config, self._ports.get("worker", 0))
        case = read_case(given, config, self._source, aws, local, needs, "the daemon's", plugged)
        return [asdict(finding) for finding in examine(case)]
