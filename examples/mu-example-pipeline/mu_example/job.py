"""What both pipelines have in common: parameters, plan and finish."""

from mu.parameters import Parameter

FILE = "##TMPDIR##/text"
COUNT = f"wc -w < {FILE}"


class WordCount:
    """Counts the words of texts in S3; a subclass says how one is counted."""

    parameters = (
        Parameter("bucket", str, "the S3 bucket with the texts"),
        Parameter("texts", list, "their keys, one worker for each"),
    )

    def plan(self, params):
        return [{"key": key} for key in params.texts]

    def finish(self, job, outcomes):
        """Add up the texts that could be counted."""
        return {"words": sum(outcome.result for outcome in outcomes if not outcome.error)}
