"""What a machine's commands say about the states that its worker awaits and passes on. Pure."""

from mu.messages import runs_encoder

ANY_PROGRAM = 2
"""The value of send_statefile that sends the state of every program, not only of the encoder."""
_VARIABLES = ("run_iter", "send_statefile", "expect_statefile")


class StatePassing:
    """Follows the commands of one attempt, as its worker does (see the worker's template.py)."""

    def __init__(self) -> None:
        self.passed: set[int] = set()
        """The numbers of the states that the neighbour gets, or can get from the relay."""
        self._values = dict.fromkeys(_VARIABLES, 0)
        self._awaited: dict[int, int] = {}  # states, by the commands that wait for them
        self._made: dict[int, int] = {}  # states, by the commands that may make them

    @property
    def awaited(self) -> int | None:
        """The number of the neighbour's state that a running program needs; None: it needs none."""
        return next(iter(self._awaited.values()), None)

    def sent(self, number: int, command: str) -> None:
        name, _, argument = command.partition(":")
        if name == "run":
            iteration = self._values["run_iter"]
            if self._values["expect_statefile"] and iteration > 0 and "##INSTATEWAIT##" in command:
                self._awaited[number] = iteration - 1
            if self._values["send_statefile"] == ANY_PROGRAM or runs_encoder(command):
                self._made[number] = iteration
        elif name in ("set", "seti"):
            variable, _, value = argument.partition(":")
            if variable in self._values and value.lstrip("+-").isdecimal():
                self._values[variable] = int(value)

    def answered(self, number: int, reply: str) -> None:
        """Note the last reply to a command."""
        self._awaited.pop(number, None)
        made = self._made.pop(number, None)
        if made is not None and self._values["send_statefile"] and reply.startswith("OK:RETVAL(0)"):
            self.passed.add(made)
