"""Where each bucket is: on the embedded S3 server, or where [s3] of mu.conf says."""

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from mu.aws.s3 import EMBEDDED_BUCKET, S3Error, S3Place
from mu.config import Config
from mu.engines.builtin import BuiltinEngines, EngineReactor
from mu.engines.local.key import S3_KEY, make_key
from mu.engines.local.process import LocalEngineError
from mu.jobs.spec import EXTERNAL


class Buckets:
    """Answers for plans, workers and the control port. `config` returns the one that is valid now."""

    def __init__(
        self, config: Callable[[], Config], engines: BuiltinEngines, reactor: EngineReactor
    ) -> None:
        self._config, self._engines, self._reactor = config, engines, reactor

    async def find(self, bucket: str) -> S3Place:
        """Return where a bucket is; the embedded server is started for its own. Raises S3Error."""
        if bucket != EMBEDDED_BUCKET:
            return self._config().s3.place
        process = self._engines.local_process
        if process is None:
            raise S3Error(
                "the embedded S3 server needs the local engine, but [local] enabled is no: set"
                " [s3] bucket in mu.conf, or give the job a bucket"
            )
        try:
            return self._embedded(await process.start_s3())
        except LocalEngineError as error:
            raise S3Error(str(error)) from None

    def find_from_thread(self, bucket: str) -> S3Place:
        """Do the same for `plan` and `finish`. Raises S3Error."""
        if bucket != EMBEDDED_BUCKET:
            return self._config().s3.place
        asking = cast(Any, lambda: Deferred.fromCoroutine(self.find(bucket)))
        return cast(S3Place, blockingCallFromThread(self._reactor, asking))

    def of_workers(self, bucket: str, engine: str) -> S3Place:
        """Return where a bucket is for workers; those elsewhere cannot reach the embedded server."""
        process = self._engines.local_process
        if bucket == EMBEDDED_BUCKET and engine in ("local", EXTERNAL) and process is not None:
            return self._embedded(process.s3_port) if process.s3_port else self._config().s3.place
        return self._config().s3.place

    def _embedded(self, port: int) -> S3Place:
        key = make_key(self._config().home, S3_KEY)
        url = f"http://127.0.0.1:{port}"
        return S3Place(url, "", "path", "", key.access_key, key.secret_key)
