"""The command string of `run`: what is put around it, and what is replaced in it. Pure."""

import re

from mu_worker.event import Event
from mu_worker.variables import Variables

TMPDIR = "##TMPDIR##"


def command_string(base: str, variables: Variables, event: Event) -> str:
    """Return `base` with everything replaced but ##TMPDIR##, which comes last (fill_tmpdir)."""

    def wanted(name: str) -> str | None:
        value = variables.text(f"cmd{name}")
        return getattr(event, name) if value is None else value

    command = base
    if (assignments := wanted("vars")) is not None:
        command = f"{assignments} {command}"
    if (arguments := wanted("args")) is not None:
        command = f"{command} {arguments}"
    for name in ("quality", "infile", "outfile"):
        if (value := wanted(name)) is not None:
            command = command.replace(f"##{name.upper()}##", value)
    wait, switch = _state_passing(variables)
    return command.replace("##INSTATEWAIT##", wait).replace("##INSTATESWITCH##", switch)


def _state_passing(variables: Variables) -> tuple[str, str]:
    """What waits for the neighbour's state, and what names it: empty without state passing."""
    iteration = variables.number("run_iter")
    if iteration <= 0 or not variables.number("expect_statefile"):
        return "", ""
    state = f"{TMPDIR}/{iteration - 1}.state"
    # the line that is fed ends the standard input of a program that waits for that; nobody is left
    # to bring a state when the worker, this shell's parent, has been killed
    there = f'[ -f "{state}" ] || ! kill -0 $PPID 2>/dev/null'
    wait = f"( until {there}; do sleep 0.025; done; echo go ) | "
    switch = f'-r -I "{state}" -p "{TMPDIR}/prev.ivf"'
    if iteration > 1:
        older = 0 if variables.number("minimal_recode") else iteration - 2
        switch += f' -S "{TMPDIR}/{older}.state"'
    return wait, switch


def awaited_state(command: str, variables: Variables) -> int | None:
    """Return the state for which a command that command_string made waits; None: for none."""
    wait, _ = _state_passing(variables)
    return variables.number("run_iter") - 1 if wait and wait in command else None


_ENCODERS = re.compile(r"(?<![\w.-])(?:xc-enc|xc-dump|xc-terminate-chunk)(?![\w.-])")


def runs_encoder(command: str) -> bool:
    """Whether a command names one of the encoder's own programs, which leave a state."""
    return _ENCODERS.search(command) is not None


def fill_tmpdir(text: str, variables: Variables) -> str:
    return text.replace(TMPDIR, variables.text("_tmpdir") or "")


_SHARED_TMP = re.compile(
    r"""(?: (?<! [\w.\-#})~*?\]%+@/] )  # not inside another path, and not right after ##TMPDIR##
          | (?<! [^\s'"] ) -\w          # but glued to an option's letter: -o/tmp/x
        ) /+tmp (?! [\w.\-] )""",
    re.VERBOSE,
)


def names_shared_tmp(text: str) -> bool:
    """Whether `text` names /tmp or something in it, other than by ##TMPDIR##."""
    return _SHARED_TMP.search(text) is not None
