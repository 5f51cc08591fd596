"""Word count as a script: the same commands, one after the other."""

from mu.states import Script, ScriptWorker
from mu_example.job import COUNT, FILE, WordCount


async def count(worker: ScriptWorker) -> int:
    await worker.set("bucket", worker.job.params.bucket)
    await worker.retrieve(worker.key, FILE)
    ran = await worker.run(COUNT)
    return int(ran.output)


class WordCountScript(WordCount):
    name = "wordcount-script"
    description = "Count the words of texts in S3 (an example, written as a script)."

    def begin(self, worker: ScriptWorker) -> Script:
        return count(worker)


pipeline = WordCountScript()
