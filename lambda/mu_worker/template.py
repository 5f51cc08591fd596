"""Builds the command string of `run`: adds variables and arguments, fills placeholders. Pure."""

import re

from mu_worker.event import WorkerEvent
from mu_worker.variables import Variables

TMPDIR = "##TMPDIR##"


def command_string(base: str, variables: Variables, event: WorkerEvent) -> str:
    """Return `base` with everything replaced except ##TMPDIR##; fill_tmpdir does that last."""

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
    """Return the command that waits for the neighbour's state, and the options that name it.

    Both are empty without state passing.
    """
    iteration = variables.number("run_iter")
    if iteration <= 0 or not variables.number("expect_statefile"):
        return "", ""
    state = f"{TMPDIR}/{iteration - 1}.state"
    # The worker writes a line to descriptor 9 when a state may be there (see programs.Program). The
    # echo releases a program that waits for its standard input. If the worker was killed, the state
    # will never arrive, and `read` fails.
    wait = f'( until [ -f "{state}" ]; do read -r line <&9 || break; done; echo go ) | '
    switch = f'-r -I "{state}" -p "{TMPDIR}/prev.ivf"'
    if iteration > 1:
        older = 0 if variables.number("minimal_recode") else iteration - 2
        switch += f' -S "{TMPDIR}/{older}.state"'
    return wait, switch


def awaited_state(command: str, variables: Variables) -> int | None:
    """Return the number of the state that a `command_string` waits for; None: it waits for none."""
    wait, _ = _state_passing(variables)
    return variables.number("run_iter") - 1 if wait and wait in command else None


def fill_tmpdir(text: str, variables: Variables) -> str:
    return text.replace(TMPDIR, variables.text("_tmpdir") or "")


_SHARED_TMP = r"""(?: (?<! [\w.\-#})~*?\]%+@/] )  # not in another path, and not after ##TMPDIR##
          | (?<! [^\s'"] ) -\w          # except right after an option: -o/tmp/x
        ) /+tmp (?! [\w.\-] )"""


def names_shared_tmp(text: str) -> bool:
    """Return whether `text` names /tmp or a path in it, except through ##TMPDIR##."""
    return re.search(_SHARED_TMP, text, re.VERBOSE) is not None
