"""A loop with a counter in `info`."""

from collections.abc import Callable

from mu.states.base import Previous, TerminalState
from mu.states.context import State
from mu.states.passes import OnePassState


class ForLoopState(OnePassState):
    """Counts `info[iterKey]` from iterInit up to iterFin - 1, and runs `loopState` for each value.

    If `info[breakKey]` is true, the loop ends before its next pass. At its end, it deletes breakKey
    and keeps iterKey at its last value. A loop entered while breakKey is None starts counting again
    in the base constructor, so setting iterInit after that has no effect.
    """

    loopState: Callable[..., State] = TerminalState
    exitState: Callable[..., State] = TerminalState
    iterKey: str = "iter_key"
    iterInit: int = 0
    iterFin: int = 0
    breakKey: str = "_loop_break"

    def __init__(self, prevState: Previous, actorNum: int = 0) -> None:
        super().__init__(prevState, actorNum)
        # Nested loops may share a break key. The iteration keys in use under that key show whether
        # a loop begins inside another one or continues.
        counting = self.worker.loops.setdefault(self.breakKey, [])
        inside_another = bool(counting) and self.iterKey not in counting
        if self.info.get(self.breakKey) is None or inside_another:
            self.info[self.iterKey] = self.iterInit - 1
            self.info[self.breakKey] = False
        if self.iterKey not in counting:
            counting.append(self.iterKey)

    def post_transition(self) -> State:
        if self.info[self.iterKey] >= self.iterFin - 1 or self.info.get(self.breakKey):
            self._leave()
            return self.exitState(self)
        self.info[self.iterKey] += 1
        return self.loopState(self)

    def _leave(self) -> None:
        counting = self.worker.loops[self.breakKey]
        counting.remove(self.iterKey)
        if counting:
            self.info[self.breakKey] = False
        else:
            self.info.pop(self.breakKey, None)
