"""The state classes and the script worker that pipelines are written with."""

from mu.deprecated import moved
from mu.states.base import ErrorState, Expect, MachineState, Previous, TerminalState
from mu.states.context import Context, Held, JobFacts, State
from mu.states.loops import ForLoopState
from mu.states.passes import (
    CommandListState,
    Entry,
    IfElseState,
    InfoWatcherState,
    MultiPassState,
    OnePassState,
)
from mu.states.relay import connect_command
from mu.states.script import ActorFailed, CommandFailed, Ran, Script, ScriptWorker
from mu.states.together import SuperpositionState

__all__ = [
    "ActorFailed",
    "CommandFailed",
    "CommandListState",
    "Context",
    "Entry",
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
    "Ran",
    "Script",
    "ScriptWorker",
    "State",
    "SuperpositionState",
    "TerminalState",
    "connect_command",
]

__getattr__ = moved(__name__, {"Worker": "mu.states.context:Context"})
