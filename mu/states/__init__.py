"""The state classes that pipelines are written with."""

from mu.machine import ErrorState, MachineState, TerminalState, Worker
from mu.states.loops import ForLoopState
from mu.states.passes import (
    CommandListState,
    IfElseState,
    InfoWatcherState,
    MultiPassState,
    OnePassState,
)
from mu.states.relay import connect_command
from mu.states.script import CommandFailed, ScriptWorker
from mu.states.together import SuperpositionState

__all__ = [
    "CommandFailed",
    "CommandListState",
    "ErrorState",
    "ForLoopState",
    "IfElseState",
    "InfoWatcherState",
    "MachineState",
    "MultiPassState",
    "OnePassState",
    "ScriptWorker",
    "SuperpositionState",
    "TerminalState",
    "Worker",
    "connect_command",
]
