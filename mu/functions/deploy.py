"""Brings a bundle to Lambda: functions are created, or changed where they differ, or deleted.

A function is asked first and then told only what differs, so that the same command can be run
again. The same calls go to AWS and to the local engine.
"""

import base64
import hashlib
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from mu.functions.aws import AwsError, Clients, told
from mu.functions.bundle import ZIP_LIMIT, sized

HANDLER = "lambda_function.lambda_handler"
RUNTIMES = ("python3.12", "python3.13", "python3.14")
RETRIES, EVENT_AGE_S = 0, 60
"""What AWS does by itself after a failure: nothing, mu starts workers again; an event that could
not run within a minute is dropped, since by then another worker has its actor."""
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
POLL_S, READY_S, ROLE_S = 1.0, 300.0, 60.0
"""How often a function is asked whether it is ready; how long that, and a new role, may take."""
_GONE = "ResourceNotFoundException"
_BUSY = "ResourceConflictException"

Tell = Callable[[str], None]


class DeployError(Exception):
    """It cannot be deployed; a sentence with what to do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a function is to have. Memory and /tmp in MB, the timeout in seconds.

    None: what the function has, or the default of DEFAULTS for a new one.
    """

    role: str | None = None
    runtime: str | None = None
    memory: int | None = None
    timeout: int | None = None
    tmp: int | None = None


DEFAULTS = Settings(runtime="python3.12", memory=1769, timeout=900, tmp=512)
"""1,769 MB is where Lambda gives one whole CPU; time limits are the coordinator's matter."""


@dataclass(frozen=True, slots=True)
class Code:
    """A bundle as Lambda knows it."""

    path: Path
    size: int
    sha256: str
    """In base64, as AWS tells it."""
    architecture: str | None
    """None: it runs on either."""

    @classmethod
    def of(cls, path: Path, architecture: str | None) -> "Code":
        """Raises DeployError where the file cannot be read."""
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
            return cls(path, path.stat().st_size, base64.b64encode(digest).decode(), architecture)
        except OSError as error:
            raise DeployError(f"{path} cannot be read: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one function, or what would."""

    name: str
    region: str
    did: str
    """created, updated, unchanged, deleted or absent."""
    changes: tuple[str, ...] = ()


def names_of(name: str, copies: int = 0, suffix: bool = False) -> list[str]:
    """Return the functions' names: NAME, or NAME-0 on for copies, with a random suffix if asked.

    Raises DeployError.
    """
    base = f"{name}_{secrets.token_hex(4)}" if suffix else name
    names = [f"{base}-{number}" for number in range(copies)] or [base]
    for one in names:
        if not NAME.fullmatch(one):
            raise DeployError(
                f"a function cannot be named {one!r}: 1 to 64 letters, digits, - and _ are expected"
            )
    return names


class Shipment:
    """The code on its way to one region: in the request, or by S3 where a bucket is given.

    What was put in S3 is taken away by close(): Lambda keeps a copy of its own.
    """

    def __init__(self, code: Code, region: str, clients: Clients, bucket: str, tell: Tell) -> None:
        self._code, self._region, self._clients, self._tell = code, region, clients, tell
        self._bucket = bucket.replace("{region}", region)
        self._key = f"mu/{base64.b64decode(code.sha256).hex()}-{secrets.token_hex(4)}.zip"
        self._lock = Lock()
        self._sent = False

    def check(self) -> None:
        """Raises DeployError or AwsError where the code cannot go this way."""
        if not self._bucket:
            if self._code.size > ZIP_LIMIT:
                raise DeployError(
                    f"{self._code.path} has {sized(self._code.size)}; Lambda takes {sized(ZIP_LIMIT)} at"
                    f" most directly: give --bucket NAME, an S3 bucket in {self._region}, by which"
                    " it goes"
                )
            return
        with told(f"the bucket {self._bucket}"):
            head = self._clients.client("s3", self._region).head_bucket(Bucket=self._bucket)
        there = head.get("BucketRegion") or self._region
        if there != self._region:
            raise DeployError(
                f"the bucket {self._bucket} is in {there}; Lambda in {self._region} takes code from"
                " buckets of its own region only: name another, as in --bucket 'code-{region}'"
            )

    def source(self) -> dict[str, Any]:
        """Return where the code is, as CreateFunction and UpdateFunctionCode want it."""
        if not self._bucket:
            return {"ZipFile": self._code.path.read_bytes()}
        with self._lock:
            if not self._sent:
                self._tell(f"Uploading {sized(self._code.size)} to s3://{self._bucket}/{self._key}")
                with told(f"uploading to s3://{self._bucket}"):
                    self._clients.client("s3", self._region).upload_file(
                        str(self._code.path), self._bucket, self._key
                    )
                self._sent = True
        return {"S3Bucket": self._bucket, "S3Key": self._key}

    def close(self) -> None:
        """Take away what was uploaded. Raises AwsError."""
        if self._sent:
            self._sent = False
            with told(f"deleting s3://{self._bucket}/{self._key}"):
                self._clients.client("s3", self._region).delete_object(
                    Bucket=self._bucket, Key=self._key
                )


class Deployment:
    """Deploys functions to one region. `dry`: says what it would do, and asks only."""

    def __init__(
        self,
        clients: Clients,
        region: str,
        tell: Tell,
        dry: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.region = region
        self._tell, self._dry, self._sleep = tell, dry, sleep
        self._lambda = clients.client("lambda", region)

    def deploy(
        self, name: str, settings: Settings, code: Code | None, shipment: Shipment | None = None
    ) -> Outcome:
        """Create the function, or change what differs; without code, its settings only.

        Raises DeployError and AwsError.
        """
        self._tell(f"Looking for {name} in {self.region}")
        there = self._find(name)
        if there is None:
            if code is None or shipment is None:
                raise DeployError(
                    f"{name} is not there yet in {self.region}: give its program, --zip FILE, or"
                    " --bare for the worker alone"
                )
            return self._create(name, code, settings, shipment)
        if there.get("PackageType", "Zip") != "Zip":
            raise DeployError(
                f"{name} in {self.region} is made of a container image, which cannot become a"
                " zip: give another --name, or delete it first with --delete"
            )
        code_changes = _code_changes(there, code) if code else []
        changed = _changed(there, settings)
        changes = code_changes + [_words(*change) for change in changed]
        if self._dry:
            changes += self._invoke_changes(name)
            return self._outcome(name, "updated" if changes else "unchanged", changes)
        if code_changes or changed:
            self._wait_until_ready(name, there)
        if code and shipment and code_changes:
            self._tell(f"Updating the code of {name} in {self.region} ({sized(code.size)})")
            self._call(
                "update_function_code",
                name,
                **({"Architectures": [code.architecture]} if code.architecture else {}),
                **shipment.source(),
            )
            self._wait_until_ready(name)
        if changed:
            self._tell(f"Changing the settings of {name} in {self.region}")
            fields = {field: new for field, _, new in changed}
            self._call("update_function_configuration", name, **_request(fields))
            self._wait_until_ready(name)
        changes += self._set_invoke_config(name)
        return self._outcome(name, "updated" if changes else "unchanged", changes)

    def delete(self, name: str) -> Outcome:
        """Delete the function, if it is there."""
        if self._find(name) is None:
            return self._outcome(name, "absent")
        if not self._dry:
            self._tell(f"Deleting {name} in {self.region}")
            self._call("delete_function", name)
        return self._outcome(name, "deleted")

    # ------------------------------------------------ steps

    def _create(self, name: str, code: Code, settings: Settings, shipment: Shipment) -> Outcome:
        if not settings.role:
            raise DeployError(
                f"{name} is not there yet in {self.region}, and a new function needs a role: give"
                " --role ARN, or set AWS_ROLE. docs/aws.md says how to make one; mu doctor --policy"
                " prints its policies"
            )
        fields = {field: value for field, value in _wanted(settings, DEFAULTS).items() if value}
        architecture = code.architecture or "x86_64"
        changes = [f"code {sized(code.size)}", architecture]
        changes += [_words(field, None, new) for field, new in fields.items() if field != "Role"]
        if not self._dry:
            self._tell(f"Creating {name} in {self.region} ({sized(code.size)})")
            request = _request(fields) | {
                "Handler": HANDLER,
                "Architectures": [architecture],
                "Code": shipment.source(),
                "Description": "A worker of mu",
            }
            self._create_once_the_role_is_known(name, request)
            self._wait_until_ready(name)
            self._set_invoke_config(name)
        return self._outcome(name, "created", changes)

    def _create_once_the_role_is_known(self, name: str, request: dict[str, Any]) -> None:
        """AWS takes some seconds to know a new role; until then it may not be assumed."""
        waited = 0.0
        while True:
            try:
                self._call("create_function", name, **request)
                return
            except AwsError as error:
                role_is_new = error.code == "InvalidParameterValueException" and (
                    "cannot be assumed" in str(error)
                )
                if not role_is_new or waited >= ROLE_S:
                    raise
            self._tell(f"Waiting until Lambda may assume the role of {name}")
            self._sleep(3 * POLL_S)
            waited += 3 * POLL_S

    def _wait_until_ready(self, name: str, there: dict[str, Any] | None = None) -> None:
        waited = 0.0
        while True:
            there = there or self._find(name)
            if there is None:
                raise DeployError(f"{name} in {self.region} was deleted meanwhile")
            state, update = (
                there.get("State", "Active"),
                there.get("LastUpdateStatus", "Successful"),
            )
            if state == "Failed" or update == "Failed":
                why = there.get("StateReason") or there.get("LastUpdateStatusReason") or "no reason"
                raise DeployError(
                    f"{name} in {self.region} cannot be made ready; Lambda says: {why}"
                )
            if state in ("Active", "Inactive") and update == "Successful":
                return
            if waited >= READY_S:
                raise DeployError(
                    f"{name} in {self.region} is still {state}, its update {update}, after"
                    f" {READY_S:g} s: run the same command again later"
                )
            self._tell(f"Waiting until {name} in {self.region} is ready: {state}, update {update}")
            self._sleep(POLL_S)
            waited += POLL_S
            there = None

    def _invoke_changes(self, name: str) -> list[str]:
        """Return what differs in how events are tried again."""
        return [_words(*difference) for difference in self._invoke_differences(name)[1]]

    def _set_invoke_config(self, name: str) -> list[str]:
        there, differences = self._invoke_differences(name)
        if differences:
            call = "update" if there else "put"  # put would forget the destinations
            fields = {field: new for field, _, new in differences}
            self._call(f"{call}_function_event_invoke_config", name, **fields)
        return [_words(*difference) for difference in differences]

    def _invoke_differences(self, name: str) -> tuple[bool, list[tuple[str, Any, Any]]]:
        there: dict[str, Any] | None
        try:
            there = self._call("get_function_event_invoke_config", name)
        except AwsError as error:
            if error.code != _GONE:
                raise
            there = None
        known = there or {}
        wanted = {"MaximumRetryAttempts": RETRIES, "MaximumEventAgeInSeconds": EVENT_AGE_S}
        defaults = {"MaximumRetryAttempts": 2, "MaximumEventAgeInSeconds": 21600}
        differences = [
            (field, known.get(field, defaults[field]), new)
            for field, new in wanted.items()
            if known.get(field, defaults[field]) != new
        ]
        return there is not None, differences

    def _find(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._call("get_function_configuration", name)
        except AwsError as error:
            if error.code == _GONE:
                return None
            raise
        return found

    def _call(self, operation: str, name: str, **fields: Any) -> Any:
        words = operation.replace("_", " ")
        for _ in range(5):
            try:
                with told(f"{words}, {name} in {self.region}"):
                    return getattr(self._lambda, operation)(FunctionName=name, **fields)
            except AwsError as error:
                if error.code != _BUSY or operation == "create_function":
                    raise
            self._tell(f"Another update of {name} in {self.region} is under way")
            self._sleep(2 * POLL_S)
        raise DeployError(
            f"{name} in {self.region} is being updated by somebody else: run the command again"
        )

    def _outcome(self, name: str, did: str, changes: Iterable[str] = ()) -> Outcome:
        return Outcome(name, self.region, did, tuple(changes))


def _words(field: str, old: Any, new: Any) -> str:
    """Return `memory 512 MB (was 128)`."""
    words = {
        "Runtime": "{}",
        "Handler": "handler {}",
        "Role": "role {}",
        "MemorySize": "memory {} MB",
        "Timeout": "timeout {} s",
        "EphemeralStorage": "/tmp {} MB",
        "MaximumRetryAttempts": "retries by AWS {}",
        "MaximumEventAgeInSeconds": "events dropped after {} s",
    }
    return words[field].format(new) + ("" if old is None else f" (was {old})")


def _code_changes(there: dict[str, Any], code: Code) -> list[str]:
    changes = []
    architecture = there.get("Architectures", ["x86_64"])[0]
    if there.get("CodeSha256") != code.sha256:
        changes.append(f"code {sized(code.size)}")
    if code.architecture not in (None, architecture):
        changes.append(f"{code.architecture} (was {architecture})")
    return changes


def _wanted(settings: Settings, defaults: Settings = DEFAULTS) -> dict[str, Any]:
    """Return the settings by Lambda's names, /tmp as a plain number."""
    names = {"role": "Role", "runtime": "Runtime", "memory": "MemorySize", "timeout": "Timeout"}
    names["tmp"] = "EphemeralStorage"
    return {
        name: getattr(settings, field) or getattr(defaults, field) for field, name in names.items()
    }


def _changed(there: dict[str, Any], settings: Settings) -> list[tuple[str, Any, Any]]:
    """Return name, old and new value of what is asked for and differs."""
    known = {**there, "EphemeralStorage": there.get("EphemeralStorage", {}).get("Size", 512)}
    wanted = _wanted(settings, Settings()) | {"Handler": HANDLER}
    return [
        (field, known.get(field), value)
        for field, value in wanted.items()
        if value and known.get(field) != value
    ]


def _request(fields: dict[str, Any]) -> dict[str, Any]:
    if "EphemeralStorage" in fields:
        return {**fields, "EphemeralStorage": {"Size": fields["EphemeralStorage"]}}
    return fields
