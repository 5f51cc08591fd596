"""Errors in a pipeline author's code name its file and line."""

import json
from pathlib import Path

from mu.parameters import FieldError
from mu.pipelines.map import map_pipeline
from mu.states import OnePassState
from mu.states.origin import explained, is_deliberate
from mu.testing import talk

HERE = Path(__file__)


def line_of(text):
    """Return the number of the only line of this file that ends with that text."""
    lines = HERE.read_text().splitlines()
    (found,) = [number for number, line in enumerate(lines, 1) if line.endswith(text)]
    return f"unit/test_origin.py, line {found}"


def raised(call, *args):
    try:
        call(*args)
    except Exception as error:
        return error
    raise AssertionError("it raised nothing")


class Broken(OnePassState):
    expect = "OK:HELLO"

    def post_transition(self):
        return self.divided()

    def divided(self):
        return 1 / 0  # in a state


async def broken(worker):
    await worker.ask("echo:hi")
    return json.loads("no")  # in a script


def test_an_error_in_a_state_or_a_script_says_where():
    (finish,) = talk(Broken, "OK:HELLO")
    assert (
        finish.error == f"Broken: ZeroDivisionError: division by zero ({line_of('# in a state')})"
    )
    *_, finish = talk(broken, "OK:HELLO", "OK:ECHO(hi)")
    assert "JSONDecodeError: " in finish.error
    assert finish.error.endswith(f"({line_of('# in a script')})")


def test_an_error_that_mu_raises_for_a_state_says_which_line_of_the_state_asked_for_it():
    class Mistaken(OnePassState):
        expect = "OK:HELLO"

        def post_transition(self):
            self.enqueue(5)  # no text

    (finish,) = talk(Mistaken, "OK:HELLO")
    assert finish.error.endswith(f"got 5 ({line_of('# no text')})")


def test_mus_own_pipelines_are_authors_too():
    (finish,) = talk(map_pipeline.begin, "OK:HELLO", given={"keys": []})
    assert "unknown parameter 'command'" in finish.error
    assert "(pipelines/map.py, line " in finish.error


def test_the_authors_of_dropins_are_authors_too():
    code = compile("def plan():\n    return {}['nowhere']", "plugins/mine_plugin.py", "exec")
    module = {"__name__": "twisted.plugins.mine_plugin"}
    exec(code, module)
    says = "KeyError: 'nowhere' (plugins/mine_plugin.py, line 2)"
    error = raised(module["plan"])
    error.__traceback__ = error.__traceback__.tb_next  # without this file
    assert explained(error) == says


def test_an_error_outside_any_authors_code_has_no_line():
    class Endless(OnePassState):
        pass

    Endless.nextState = Endless
    (finish,) = talk(Endless)
    assert finish.error.endswith("transitions without waiting for the worker")


def test_only_what_an_author_raises_on_purpose_is_meant_for_users():
    def purposely():
        raise ValueError(
            "there is no key",
        )

    def by_accident():
        return int("x")

    def inside_a_library():
        return json.loads("{")

    assert is_deliberate(raised(purposely))
    assert not is_deliberate(raised(by_accident))
    assert not is_deliberate(raised(inside_a_library))

    def refused():
        raise FieldError("params.x", "no")

    assert is_deliberate(raised(refused))
