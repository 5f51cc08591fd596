"""The state classes, each by its commands."""

from typing import ClassVar

import pytest

from mu.events import Finish, Send
from mu.states import (
    CommandListState,
    ForLoopState,
    MultiPassState,
    OnePassState,
    TerminalState,
)
from mu.testing import effects_of, machine, talk


def sends(*args, **kwargs):
    return [effect.command for effect in talk(*args, **kwargs) if isinstance(effect, Send)]


# ---------------------------------------------------------------- one pass


def test_one_pass_goes_to_error_on_a_foreign_reply():
    class One(OnePassState):
        expect = "OK:SET"

    assert talk(One, "OK:GET(1)") == [
        Finish("One: expected 'OK:SET', but the worker answered 'OK:GET(1)'")
    ]


def test_one_pass_may_expect_one_of_several_prefixes():
    class One(OnePassState):
        expect: ClassVar = ["OK:SET", "OK:ECHO"]
        command = "quit:"

    assert talk(One, "OK:ECHO(1)") == [Send("quit:"), Finish()]
    assert talk(One, "OK:GET(1)")[0].error.startswith("One: expected ['OK:SET', 'OK:ECHO']")


def test_one_pass_without_expect_runs_at_once_and_keeps_a_placeholder():
    class Next(OnePassState):
        expect = "OK"

    class One(OnePassState):
        command = "echo:1"
        nextState = Next

    driven = machine(One)
    assert effects_of(driven) == [Send("echo:1")]
    assert len(driven.state.prevState.messages) == 1


def test_an_instance_may_set_command_expect_and_next_state():
    class One(OnePassState):
        def __init__(self, prevState, actorNum=0):
            super().__init__(prevState, actorNum)
            self.expect, self.command, self.nextState = "OK", "echo:mine", Two

    class Two(OnePassState):
        command = "quit:"

    assert talk(One) == []
    assert talk(One, "OK:HELLO") == [Send("echo:mine"), Send("quit:"), Finish()]


def test_post_transition_sees_the_message_and_chooses_the_next_state():
    class One(OnePassState):
        expect = "OK"
        command = "echo:a"

        def post_transition(self):
            self.enqueue("echo:" + self.messages[-1])
            return TerminalState(self)

    assert sends(One, "OK:x") == ["echo:a", "echo:OK:x"]


# ---------------------------------------------------------------- several passes


def test_multi_pass_sends_each_command_on_its_reply_and_leaves_with_the_last():
    class Multi(MultiPassState):
        expects = ("OK:HELLO", "OK:A")
        commands = ("a:", "b:")

    driven = machine(Multi)
    assert effects_of(driven, "OK:HELLO") == [Send("a:")]
    assert talk(Multi, "OK:HELLO", "OK:A") == [Send("a:"), Send("b:"), Finish()]


def test_an_expect_of_none_further_down_sends_straight_on_and_keeps_no_message():
    class Multi(MultiPassState):
        expects = ("OK", None, "OK")
        commands = ("a:", "b:", None)

        def post_transition(self):
            self.enqueue(f"seen:{self.messages}")
            return TerminalState(self)

    assert sends(Multi, "OK:1", "OK:2") == ["a:", "b:", "seen:['OK:1', 'OK:2']"]


def test_multi_pass_says_what_it_waited_for():
    class Multi(MultiPassState):
        expects = ("OK:HELLO", "OK:A")
        commands = ("a:", "b:")

    assert talk(Multi, "OK:HELLO", "OK:B")[-1] == Finish(
        "Multi: expected 'OK:A', but the worker answered 'OK:B'"
    )


def test_lists_of_different_length_fail_the_actor():
    class Multi(MultiPassState):
        expects = ("OK",)
        commands = ("a:", "b:")

    assert (
        "commands and expects must be equally long, got 2 commands and 1 expects"
        in talk(Multi, "OK")[-1].error
    )


# ---------------------------------------------------------------- command lists


class Follow(OnePassState):
    expect = "OK"
    command = "quit:"


def test_a_list_expects_what_the_command_before_answers():
    class Setup(CommandListState):
        commandlist = ("set:a:1", "run:true", "retrieve:", "echo:x")
        nextState = Follow

    state = Setup(machine(Setup).worker, 0)
    assert state.expects == ["OK", "OK:SET", "OK:R", "OK:RETRIEV"]
    assert state.commands == ["set:a:1", "run:true", "retrieve:", "echo:x"]


def test_the_reply_to_the_last_command_belongs_to_the_next_state():
    class Setup(CommandListState):
        commandlist = ("set:a:1", "echo:x")
        nextState = Follow

    assert sends(Setup, "OK:HELLO", "OK:SET(a)") == ["set:a:1", "echo:x"]
    assert sends(Setup, "OK:HELLO", "OK:SET(a)", "OK:ECHO(x)")[-1] == "quit:"


@pytest.mark.parametrize("last", [None, ("OK:ECHO", None)])
def test_a_last_entry_without_a_command_waits_here(last):
    class Setup(CommandListState):
        commandlist = ("echo:x", last)

    assert talk(Setup, "OK:HELLO") == [Send("echo:x")]
    assert talk(Setup, "OK:HELLO", "OK:ECHO(x)") == [Send("echo:x"), Finish()]


def test_a_tuple_says_what_is_expected_and_a_first_none_starts_at_once():
    class Setup(CommandListState):
        commandlist = ((None, "run:a"), ("OK:RETVAL(0)", "run:b"), ("OK:RETVAL(0)", None))

    assert sends(Setup) == ["run:a"]
    assert sends(Setup, "OK:RETVAL(0):OUTPUT():COMMAND(a)") == ["run:a", "run:b"]
    assert "expected 'OK:RETVAL(0)'" in talk(Setup, "OK:RETVAL(1)")[-1].error


def test_an_entry_after_one_without_a_command_expects_ok():
    class Setup(CommandListState):
        commandlist = ("echo:x", None, "echo:y")

    state = Setup(machine(Setup).worker, 0)
    assert state.expects == ["OK", "OK:ECHO", "OK"]


def test_expects_are_taken_before_the_constructor_formats_the_commands():
    class Setup(CommandListState):
        commandlist = ("{0}", "echo:{0}", None)

        def __init__(self, prevState, actorNum=0):
            super().__init__(prevState, actorNum)
            self.commands = [c if c is None else c.format("set:a:1") for c in self.commands]

    state = Setup(machine(Setup).worker, 0)
    assert state.expects == ["OK", "OK", "OK:ECHO"]
    assert sends(Setup, "OK:HELLO") == ["set:a:1"]


def test_a_constructor_may_make_its_list_from_the_job_before_the_base_constructor():
    class Setup(CommandListState):
        def __init__(self, prevState, actorNum=0):
            self.commandlist = [f"set:chunk:{self.job.params['first'] + self.actorNum}"]
            super().__init__(prevState, actorNum)

    assert sends(Setup, "OK:HELLO", params={"first": 10}, actor=3) == ["set:chunk:13"]


def test_a_list_in_a_pipeline_is_sent_at_once_and_left_one_reply_early():
    class Setup(CommandListState):
        pipelined = True
        commandlist = ("set:a:1", "set:b:2", "set:c:3", "echo:x")
        nextState = Follow

    commands = ["set:a:1", "set:b:2", "set:c:3", "echo:x"]
    answers = ["OK:HELLO", "OK:SET(a)", "OK:SET(b)", "OK:SET(c)", "OK:ECHO(x)"]
    assert sends(Setup, *answers[:1]) == commands
    assert sends(Setup, *answers[:4]) == commands
    assert sends(Setup, *answers) == [*commands, "quit:"]


def test_replies_of_a_pipeline_are_awaited_in_order():
    class Setup(CommandListState):
        pipelined = True
        commandlist = ("set:a:1", "echo:x", "run:y")

    assert "expected 'OK:SET'" in talk(Setup, "OK:HELLO", "OK:ECHO(x)")[-1].error


def test_the_list_on_the_class_is_never_changed_by_an_instance():
    class Setup(CommandListState):
        commandlist = ["a:", "b:"]  # noqa: RUF012

    state = Setup(machine(Setup).worker, 0)
    state.commands[0] = "changed:"
    assert Setup.commandlist == ["a:", "b:"]
    assert Setup(machine(Setup).worker, 0).commands == ["a:", "b:"]


def test_an_empty_list_goes_straight_on():
    class Setup(CommandListState):
        nextState = Follow

    assert sends(Setup, "OK:HELLO") == ["quit:"]


# ---------------------------------------------------------------- loops


def make_loop(**attributes):
    """A loop whose body sends `echo:<counter>` and waits; after it `quit:`."""

    class Leave(OnePassState):
        command = "quit:"

    class Loop(ForLoopState):
        exitState = Leave

    class Body(CommandListState):
        nextState = Loop

        def __init__(self, prevState, actorNum=0):
            self.commandlist = ((None, f"echo:{self.info[Loop.iterKey]}"), None)
            super().__init__(prevState, actorNum)

    Loop.loopState = Body
    for name, value in attributes.items():
        setattr(Loop, name, value)
    return Loop


def test_a_loop_counts_from_init_to_fin_minus_one_and_keeps_the_last_round():
    driven = machine(make_loop(iterFin=3))
    effects = effects_of(driven, "OK:ECHO", "OK:ECHO", "OK:ECHO")
    assert effects == [Send("echo:0"), Send("echo:1"), Send("echo:2"), Send("quit:"), Finish()]
    assert driven.worker.info == {"iter_key": 2}


def test_a_loop_may_start_elsewhere_and_may_have_no_round():
    assert sends(make_loop(iterInit=5, iterFin=7), *["OK:ECHO"] * 9) == [
        "echo:5",
        "echo:6",
        "quit:",
    ]
    assert sends(make_loop(iterInit=7, iterFin=7)) == ["quit:"]


def test_an_iter_init_set_after_the_base_constructor_has_no_effect_but_an_iter_fin_has():
    loop = make_loop(iterFin=1)

    class Late(loop):  # type: ignore[valid-type]
        def __init__(self, prevState, actorNum=0):
            super().__init__(prevState, actorNum)
            self.iterInit, self.iterFin = 10, 2

    loop.loopState.nextState = Late
    assert sends(Late, *["OK:ECHO"] * 5) == ["echo:0", "echo:1", "quit:"]


def test_a_true_break_key_ends_the_loop_at_its_next_pass():
    loop = make_loop(iterFin=100)
    driven = machine(loop)
    effects_of(driven, "OK:ECHO")
    driven.worker.info[loop.breakKey] = True
    effects = effects_of(driven, "OK:ECHO")
    assert effects[-2:] == [Send("quit:"), Finish()]
    assert loop.breakKey not in driven.worker.info


def test_a_loop_counts_on_from_what_its_keys_already_hold():
    def begin(worker):
        worker.info.update({"iter_key": 4, "_loop_break": False})
        return make_loop(iterFin=6)(worker, 0)

    assert sends(begin, "OK:ECHO") == ["echo:5", "quit:"]


def nested(break_inner_at=None):
    """Two nested loops that share the default break key."""

    class Outer(ForLoopState):
        iterKey, iterFin = "i", 2

    class Inner(ForLoopState):
        iterKey, iterFin, exitState = "j", 3, Outer

    class Body(CommandListState):
        nextState = Inner

        def __init__(self, prevState, actorNum=0):
            self.commandlist = ((None, "echo:{i}{j}".format(**self.info)), None)
            super().__init__(prevState, actorNum)
            if self.info["j"] == break_inner_at:
                self.info[Inner.breakKey] = True

    Outer.loopState, Inner.loopState = Inner, Body
    return Outer


def test_nested_loops_that_share_a_break_key_each_count_on_their_own():
    rounds = ["echo:00", "echo:01", "echo:02", "echo:10", "echo:11", "echo:12"]
    driven = machine(nested())
    effects = effects_of(driven, *["OK:ECHO"] * 6)
    assert effects == [*map(Send, rounds), Finish()]
    assert driven.worker.info == {"i": 1, "j": 2}


def test_a_break_leaves_the_inner_loop_only():
    assert sends(nested(break_inner_at=1), *["OK:ECHO"] * 9) == [
        "echo:00",
        "echo:01",
        "echo:10",
        "echo:11",
    ]
