"""What both pipelines have in common: parameters, plan and finish."""

from collections.abc import Sequence

from mu.parameters import Parameter, Params
from mu.plugins import ActorInput, Outcome, Pipeline
from mu.states import JobFacts

FILE = "##TMPDIR##/text"
COUNT = f"wc -w < {FILE}"


class WordCount(Pipeline):
    """Counts the words of texts in S3. A subclass defines how a worker counts one text."""

    parameters = (
        Parameter("bucket", str, "the S3 bucket with the texts"),
        Parameter("texts", list, "the keys of the texts, one worker for each"),
    )

    def plan(self, params: Params) -> list[ActorInput]:
        return [{"key": key} for key in params.texts]

    def finish(self, job: JobFacts, outcomes: Sequence[Outcome]) -> dict[str, int]:
        """Add up the words of all texts that could be counted."""
        return {"words": sum(outcome.result for outcome in outcomes if not outcome.error)}
