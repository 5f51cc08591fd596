"""The function that runs functions of Python: the worker, cloudpickle, and the packages asked for.

Its name says what is in it, so that it is deployed once, and never changed.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mu.client.address import Home, find_home
from mu.client.errors import ClientError
from mu.client.local import local_clients

if TYPE_CHECKING:
    from mu.functions.apis import Clients
    from mu.functions.requirements import Requirements

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
LOCAL_ROLE = "arn:aws:iam::000000000000:role/none"
"""The local engine requires a role, but ignores it."""


@dataclass(frozen=True, slots=True)
class PythonFunction:
    """What the function of a map is made from."""

    engine: str | None = None
    regions: Sequence[str] = ()
    memory: int | None = None
    """In MB; None: mu's default."""
    requirements: str | Path | None = None
    """A file of requirements."""
    role: str | None = None
    """The IAM role of a new function on AWS."""

    def key(self) -> Hashable:
        """Return what is the same as long as the function is. Raises ClientError."""
        lines = b"" if self.requirements is None else _content_of(Path(self.requirements))
        return self, lines

    def deploy(
        self,
        given: Mapping[str, str],
        environ: Mapping[str, str],
        is_there: Callable[[str, str, str], bool],
    ) -> tuple[str, str]:
        """Create the function, unless it is there; return its engine and its name.

        `is_there` asks the daemon for an engine, a name and a region, which is faster than asking
        the engine: that takes boto3. Raises ClientError.
        """
        home = None if "url" in given else find_home(given, environ)
        engine = self.engine or (home.config.launch.engine if home else "")
        if engine not in ("lambda", "local") or (home is None and engine == "local"):
            raise ClientError(
                f"a function for engine {engine or 'unknown'} cannot be deployed from here: give the"
                " name of one that has cloudpickle, with function="
            )
        regions = list(self.regions) or ([home.config.launch.region] if home else [])
        if not regions:
            raise ClientError("with url=, a function is deployed to AWS: give regions=")
        self._check_python(engine)
        name = f"mu-python{PYTHON.replace('.', '')}-{self._digest(engine)}"
        missing = [region for region in regions if not is_there(engine, name, region)]
        if missing:
            self._create(name, missing, engine, home)
        return engine, name

    def _create(self, name: str, regions: Sequence[str], engine: str, home: Home | None) -> None:
        from mu.functions.aws import AwsClients, AwsError
        from mu.functions.bundle import BundleError
        from mu.functions.shipment import DeployError

        there = home if engine == "local" else None
        clients: Clients = AwsClients() if there is None else local_clients(there)
        try:
            for region in regions:
                self._deploy_to(region, name, engine, clients)
        except (AwsError, BundleError, DeployError) as error:
            raise ClientError(f"the function {name} cannot be deployed: {error}") from None

    def _check_python(self, engine: str) -> None:
        from mu.aws.limits import NEWER, RUNTIMES

        if engine == "lambda" and f"python{PYTHON}" not in (*RUNTIMES, *NEWER):
            known = ", ".join(one.removeprefix("python") for one in RUNTIMES)
            raise ClientError(
                f"this client runs Python {PYTHON}, and functions on AWS run {known}: use one of"
                " these versions here, too"
            )

    def _deploy_to(self, region: str, name: str, engine: str, clients: Clients) -> None:
        from mu.functions.bundle import bundle
        from mu.functions.deploy import Deployment, Settings
        from mu.functions.shipment import Code, Shipment

        deployment = Deployment(clients, region, lambda sentence: None)
        if deployment.exists(name):
            return
        with tempfile.TemporaryDirectory(prefix="mu-python-") as folder:
            made = bundle(
                Path(folder, "bundle.zip"),
                files={"cloudpickle": cloudpickle_folder()},
                requirements=self._requirements(engine),
            )
            code = Code.of(made.path, made.architecture)
            role = LOCAL_ROLE if engine == "local" else self.role
            settings = Settings(role, f"python{PYTHON}", self.memory)
            shipment = Shipment(code, region, clients, "", lambda sentence: None)
            deployment.deploy(name, settings, code, shipment)

    def _requirements(self, engine: str) -> Requirements | None:
        from mu.functions.requirements import Requirements

        if self.requirements is None:
            return None
        runtime = f"python{PYTHON}" if engine == "lambda" else ""
        return Requirements(Path(self.requirements), runtime)

    def _digest(self, engine: str) -> str:
        """Return a digest of everything that determines the function. Raises ClientError."""
        from mu.functions.contents import below, worker_sources

        content = hashlib.sha256(repr((engine == "lambda", self.memory)).encode())
        files = [*worker_sources(), *below("cloudpickle", cloudpickle_folder())]
        if self.requirements is not None:
            files.append(("requirements", Path(self.requirements)))
        for name, path in files:
            content.update(f"{name}\0".encode() + hashlib.sha256(_content_of(path)).digest())
        return content.hexdigest()[:16]


def _content_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from None


def cloudpickle_folder() -> Path:
    """Return the folder of the installed package. Raises ClientError."""
    return Path(str(the_cloudpickle().__file__)).parent


def the_cloudpickle():  # type: ignore[no-untyped-def]  # the package has no types
    """Return the package. Raises ClientError."""
    try:
        import cloudpickle
    except ImportError:
        raise ClientError(
            "functions of Python need cloudpickle: pip install 'mu[python]'"
        ) from None
    return cloudpickle
