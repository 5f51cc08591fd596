"""The machine alone: processor time per reply of a long list of echoes, as states and as a script.

It is compared with what a bare Twisted TLS server spends on a command in the same run
(coordinator.py).
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

from coordinator import measure_bare

from mu.events import Answered, Entered
from mu.machine import Machine
from mu.parameters import Params
from mu.states import CommandListState, JobFacts, Script, ScriptWorker, State
from mu.states.script import first_state

ECHOES = 50_000
ECHO = "echo:hello from actor 0"
REPLY = "OK:ECHO(hello from actor 0)"


class Echoes(CommandListState):
    commandlist = (ECHO,) * ECHOES


async def echoes(worker: ScriptWorker) -> None:
    for _ in range(ECHOES):
        await worker.ask(ECHO)


Begin = Callable[[ScriptWorker], State | Script]


def us_per_event(begin: Begin) -> float:
    """Return the processor time per reply, in microseconds."""
    machine = Machine(ScriptWorker(JobFacts("bench", Params()), 0), first_state(begin))
    machine.receive(Entered(0.0))
    machine.receive(Answered(0.0, "OK:HELLO"))
    replies = [Answered(float(n), REPLY, n) for n in range(1, ECHOES)]
    begun = time.process_time()
    for reply in replies:
        machine.receive(reply)
    return 1e6 * (time.process_time() - begun) / len(replies)


def main() -> None:
    kinds: dict[str, Begin] = {"states": lambda worker: Echoes(worker, 0), "script": echoes}
    runs = [{name: us_per_event(begin) for name, begin in kinds.items()} for _ in range(5)]
    figures = {name: statistics.median(run[name] for run in runs) for name in kinds}
    figures["bare"] = measure_bare(1000, 0.0, 60_000)["us"]
    if "--json" in sys.argv:
        print(json.dumps(figures))
        return
    print(
        "machine: {states:.2f} us of processor time per reply as states, {script:.2f} us as a script"
        " (ratio {growth:.2f}); a bare TLS server spends {bare:.1f} us on a command"
        " (ratios {ratio:.3f} and {script_ratio:.3f})".format(
            growth=figures["script"] / figures["states"],
            ratio=figures["states"] / figures["bare"],
            script_ratio=figures["script"] / figures["bare"],
            **figures,
        )
    )


if __name__ == "__main__":
    main()
