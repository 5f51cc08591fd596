"""The state classes and the script worker that pipelines are written with.

A state waits for a reply from the worker, sends a command and constructs the next state.

>>> from mu.testing import talk
>>> class Leave(OnePassState):
...     expect = "OK:ECHO"
...     command = "quit:"
>>> class Greet(CommandListState):
...     commandlist = [("OK:HELLO", "set:bucket:films"), "echo:hi"]
...     nextState = Leave
>>> for effect in talk(Greet, "OK:HELLO", "OK:SET(bucket)", "OK:ECHO(hi)"):
...     print(effect)
Send(command='set:bucket:films')
Send(command='echo:hi')
Send(command='quit:')
Finish(error=None, result=None)

A script is a coroutine that does the same:

>>> async def greet(worker):
...     await worker.set("bucket", "films")
...     return await worker.ask("echo:hi")
>>> talk(greet, "OK:HELLO", "OK:SET(bucket)", "OK:ECHO(hi)")[-1]
Finish(error=None, result='OK:ECHO(hi)')
"""

from mu.deprecated import moved
from mu.states.base import ErrorState, Expect, MachineState, Previous, TerminalState
from mu.states.context import Context, Held, JobFacts, Progress, State
from mu.states.loops import ForLoopState
from mu.states.passes import (
    CommandEntry,
    CommandListState,
    IfElseState,
    InfoWatcherState,
    MultiPassState,
    OnePassState,
)
from mu.states.relay import connect_command
from mu.states.script import ActorFailed, CommandFailed, Ran, Script, ScriptWorker, Started
from mu.states.together import SuperpositionState

__all__ = [
    "ActorFailed",
    "CommandEntry",
    "CommandFailed",
    "CommandListState",
    "Context",
    "ErrorState",
    "Expect",
    "ForLoopState",
    "Held",
    "IfElseState",
    "InfoWatcherState",
    "JobFacts",
    "MachineState",
    "MultiPassState",
    "OnePassState",
    "Previous",
    "Progress",
    "Ran",
    "Script",
    "ScriptWorker",
    "Started",
    "State",
    "SuperpositionState",
    "TerminalState",
    "connect_command",
]

__getattr__ = moved(__name__, {"Worker": "mu.states.context:Context"})
