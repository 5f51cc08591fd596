"""The state classes that pipelines are written with."""

from mu.machine import ErrorState, MachineState, TerminalState, Worker
from mu.states.loops import ForLoopState
from mu.states.passes import CommandListState, MultiPassState, OnePassState

__all__ = [
    "CommandListState",
    "ErrorState",
    "ForLoopState",
    "MachineState",
    "MultiPassState",
    "OnePassState",
    "TerminalState",
    "Worker",
]
