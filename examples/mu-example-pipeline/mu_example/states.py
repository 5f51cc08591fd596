"""Word count as state classes: each is a list of commands, or says what to do with a reply."""

from mu.messages import parse_retval
from mu.states import CommandListState, Context, OnePassState, Previous, TerminalState
from mu_example.job import COUNT, FILE, WordCount


class Counted(TerminalState):
    def __init__(self, prevState: OnePassState, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        _, output = parse_retval(prevState.messages[-1])
        self.result = int(output)


class Count(OnePassState):
    expect = "OK:RETVAL(0)"
    nextState = Counted


class Fetch(CommandListState):
    nextState = Count

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        self.commandlist = [
            f"set:bucket:{self.job.params.bucket}",
            f"retrieve:{self.worker.input['key']}\0{FILE}",
            f"run:{COUNT}",
        ]
        super().__init__(prevState, actorNum)


class WordCountStates(WordCount):
    name = "wordcount-states"
    description = "Count the words of texts in S3 (an example, written as states)."

    def begin(self, worker: Context) -> Fetch:
        return Fetch(worker, worker.actor)


pipeline = WordCountStates()
