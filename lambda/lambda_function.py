"""The function's entry point, which Lambda calls. The worker itself is in mu_worker."""

import os
from collections.abc import Mapping

from mu_worker.init import Init
from mu_worker.start import start

HERE = os.path.dirname(os.path.abspath(__file__))
INIT = Init()


def lambda_handler(event: Mapping[str, object], context: object) -> dict[str, object]:
    """Run a worker for `event` and return how it ended. Raises ValueError for an invalid event."""
    request = str(getattr(context, "aws_request_id", ""))
    return start(event, os.environ.get("LAMBDA_TASK_ROOT") or HERE, INIT.take(), request)
