"""The machine and its base states: events in, effects out."""

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mu.events import (
    Answered,
    CancelTimer,
    Elapsed,
    Entered,
    Finish,
    Informed,
    Lost,
    Send,
    SetTimer,
)
from mu.interfaces import IState
from mu.messages import HELLO
from mu.states import (
    CommandListState,
    ForLoopState,
    InfoWatcherState,
    MultiPassState,
    OnePassState,
    SuperpositionState,
)
from mu.states.base import ErrorState, MachineState, TerminalState
from mu.states.context import HELD_LIMIT, Held, State
from mu.testing import effects_of, event, machine, talk


class Leave(OnePassState):
    command = "quit:"


class Greet(OnePassState):
    """Say hello back, then leave."""

    expect = "OK:HELLO"
    command = "echo:hi"
    nextState = Leave


def test_an_actor_finishes_when_its_machine_reaches_a_terminal_state():
    assert talk(Greet, "OK:HELLO") == [Send("echo:hi"), Send("quit:"), Finish()]


def test_a_machine_does_nothing_after_it_finished():
    assert talk(Greet, "OK:HELLO", "OK:ECHO(hi)", "FAIL(late)", "INFO:a:b") == [
        Send("echo:hi"),
        Send("quit:"),
        Finish(),
    ]


def test_a_fail_reply_fails_the_actor_and_says_where():
    assert talk(Greet, "FAIL(disk full)") == [
        Finish("Greet: the worker answered 'FAIL(disk full)'")
    ]


def test_a_lost_worker_fails_the_actor_with_its_reason():
    assert talk(Greet, Lost(1.0, "it went away")) == [Finish("Greet: it went away")]


def test_a_very_long_reply_is_shortened_in_the_error():
    (finish,) = talk(Greet, "FAIL(" + "x" * 10_000 + "end)")
    assert len(finish.error) < 500
    assert finish.error.endswith("end)'")


def test_an_exception_in_a_state_fails_its_actor_and_is_kept():
    class Broken(OnePassState):
        def post_transition(self):
            return 1 // 0

    driven = machine(Broken)
    (finish,) = effects_of(driven)
    said = "Broken: ZeroDivisionError: integer division or modulo by zero (unit/test_machine.py, "
    assert finish.error.startswith(said)
    assert isinstance(driven.crash, ZeroDivisionError)


def test_an_exception_while_the_first_state_is_made_fails_the_actor():
    def begin(worker):
        raise KeyError("nothing")

    (finish,) = talk(begin)
    assert finish.error.startswith("begin: KeyError: 'nothing' (unit/test_machine.py, line ")


@pytest.mark.parametrize("wrong", [None, "Leave", Leave])
def test_a_pipeline_that_begins_with_something_that_is_no_state_fails_the_actor(wrong):
    driven = machine(lambda worker: wrong)
    (finish,) = effects_of(driven)
    says = f"begin: TypeError: begin() must return a State or coroutine, not {wrong!r}"
    assert finish.error == says
    assert (driven.label, driven.expected) == ("", None)


@pytest.mark.parametrize("wrong", [None, "Leave", Leave])
def test_a_transition_to_something_that_is_no_state_fails_the_actor(wrong):
    class Lost_(MachineState):
        def transition(self, msg):
            return wrong

    (finish,) = talk(Lost_, "OK")
    assert finish.error.endswith(f"TypeError: transition() must return a State, not {wrong!r}")


def test_a_machine_that_never_waits_is_stopped():
    class Spin(OnePassState):
        pass

    Spin.nextState = Spin
    (finish,) = talk(Spin)
    assert "over 10000 transitions" in finish.error


def test_the_base_state_drops_messages():
    assert talk(MachineState, "OK:HELLO", "OK") == []


def test_a_value_error_keeps_the_reply_for_a_later_state():
    class Wants(MachineState):
        def transition(self, msg):
            if msg != self.expect:
                raise ValueError("not for me now")
            self.enqueue(f"got:{msg}")
            return self.follower(self)  # type: ignore[attr-defined]

    class Second(Wants):
        expect = "b"
        follower = TerminalState

    class First(Wants):
        expect = "a"
        follower = Second

    assert talk(First, "b", "a") == [Send("got:a"), Send("got:b"), Finish()]


def test_kept_replies_are_offered_oldest_first_again_after_each_one_taken():
    class Sorter(MachineState):
        wanted = "abc"

        def transition(self, msg):
            if msg != self.wanted[0]:
                raise ValueError
            self.enqueue(msg)
            self.wanted = self.wanted[1:]
            return self if self.wanted else TerminalState(self)

    assert talk(Sorter, "c", "b", "a") == [Send("a"), Send("b"), Send("c"), Finish()]


def test_a_value_error_after_something_was_sent_fails_the_actor():
    class Sends(MachineState):
        def transition(self, msg):
            self.enqueue("echo:x")
            raise ValueError("too late")

    sent, finish = talk(Sends, "OK")
    assert sent == Send("echo:x")
    assert finish.error.startswith("Sends: ValueError: too late (")


def test_kept_replies_are_bounded():
    class Never(MachineState):
        expect = "godot"

        def transition(self, msg):
            raise ValueError

    effects = talk(Never, *["OK"] * (HELD_LIMIT + 1))
    assert len(effects) == 1
    assert "this one expects 'godot'" in effects[0].error


def test_a_state_that_puts_off_what_is_no_reply_fails_its_actor():
    class Puts(MachineState):
        def receive(self, event, send):
            raise Held

    (finish,) = talk(Puts)
    assert finish.error == "Puts: TypeError: Puts raised Held for Entered, which is not a reply"


def test_info_reaches_the_state_that_is_current():
    class Watch(MachineState):
        def info_updated(self):
            if "key" in self.info:
                self.kick()

        def transition(self, msg):
            self.enqueue("echo:" + self.info["key"])
            return TerminalState(self)

    assert talk(Watch, "INFO:other:1", "INFO:key:a:b") == [Send("echo:a:b"), Finish()]


def test_kicked_twice_a_state_runs_once():
    class Kicked(MachineState):
        def __init__(self, prevState, actorNum=0):
            super().__init__(prevState, actorNum)
            self.kick()
            self.kick()

        def transition(self, msg):
            self.enqueue("echo:once")
            return self

    assert talk(Kicked) == [Send("echo:once")]


def test_a_timeout_is_set_on_entry_and_cancelled_on_leaving():
    class Patient(OnePassState):
        expect = "OK"
        timeout = 5
        nextState = Greet

    assert talk(Patient, "OK") == [SetTimer("state1", 5), CancelTimer("state1")]


def test_a_timeout_that_elapses_fails_the_actor():
    class Patient(OnePassState):
        expect = "OK"
        timeout = 5

    assert talk(Patient, Elapsed(6.0, "state1")) == [
        SetTimer("state1", 5),
        Finish("Patient: it took longer than its timeout of 5 s"),
    ]


def test_a_command_must_be_text():
    class Bytes(OnePassState):
        command = b"quit:"

    (finish,) = talk(Bytes)
    assert "a command must be a str, got b'quit:'" in finish.error


def test_states_share_info_job_and_actor_number_and_are_all_noted():
    seen = []

    class Last(OnePassState):
        expect = "never"

        def __init__(self, prevState, actorNum=0):
            seen.append((self.job.id, self.actorNum, self.info["k"]))
            super().__init__(prevState, actorNum)

    class First(OnePassState):
        expect = "OK"
        nextState = Last

        def __init__(self, prevState, actorNum=0):
            super().__init__(prevState, actorNum)
            self.info["k"] = "v"

    driven = machine(First, actor=7)
    effects_of(driven, "OK")
    assert seen == [("j1", 7, "v")]
    assert driven.worker.stateinfo == [(0.0, "First"), (1.0, "Last")]
    assert driven.state.timestamps == [0.0, 1.0]


def test_a_state_reaches_back_one_step_and_no_further():
    class Third(OnePassState):
        expect = "OK"

    class Second(OnePassState):
        expect = "OK"
        nextState = Third

    class First(OnePassState):
        expect = "OK"
        nextState = Second

    driven = machine(First)
    effects_of(driven, "OK:1", "OK:2")
    assert driven.state.prevState.messages == ["OK:2"]
    assert driven.state.prevState.prevState is None


def test_a_constructor_may_turn_its_state_into_an_error():
    class Refuses(OnePassState):
        expect = "OK"

        def __init__(self, prevState, actorNum=0):
            super().__init__(prevState, actorNum)
            self.__class__ = ErrorState
            self.err = "I would rather not"

    class First(OnePassState):
        expect = "OK"
        nextState = Refuses

    assert talk(First, "OK") == [Finish("First: I would rather not")]


def test_the_same_events_give_the_same_effects():
    events = [Informed(1.0, "k", "v"), Answered(2.0, "OK:HELLO"), Answered(3.0, "OK:ECHO(hi)")]
    assert talk(Greet, *events) == talk(Greet, *events)


def test_a_result_that_is_no_json_value_fails_the_actor():
    class Odd(TerminalState):
        result = {1, 2}  # noqa: RUF012

    assert "set is not JSON serializable" in talk(Odd)[-1].error


def test_a_state_cannot_stay_when_its_worker_is_gone():
    class Stubborn(MachineState):
        def receive(self, event, send):
            return self

    assert talk(Stubborn, Lost(1.0, "it went away")) == [Finish("it went away")]


def test_a_command_that_cannot_be_encoded_fails_its_actor():
    class Odd(OnePassState):
        expect = "OK"
        command = "echo:\ud800"

    assert "cannot be sent: surrogates not allowed" in talk(Odd, "OK")[-1].error
    assert talk(type("Fine", (Odd,), {"command": "echo:\udcff"}), "OK")[0] == Send("echo:\udcff")


@pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
def test_a_timeout_that_is_no_time_fails_its_actor(timeout):
    class Odd(OnePassState):
        expect = "OK"

    Odd.timeout = timeout
    assert "a timeout must be a number of seconds, at least 0" in talk(Odd)[-1].error


def test_an_attribute_of_an_author_may_have_any_name():
    class Author(OnePassState):
        expect = "OK"
        states = 5

    assert talk(Author, "OK") == [Finish()]


def test_an_extra_that_raises_hides_nothing_else():
    class Odd(OnePassState):
        expect = "OK"

        def str_extra(self):
            raise RuntimeError("no words")

    driven = machine(Odd)
    effects_of(driven)
    assert driven.label == "Odd"
    assert effects_of(driven, "OK") == [Finish()]


def test_a_label_that_is_no_text_is_not_shown():
    driven = machine(
        type("Odd", (OnePassState,), {"expect": "OK", "label": lambda self: "a method"})
    )
    effects_of(driven)
    assert (driven.label, driven.last_label) == ("Odd", "Odd")
    assert effects_of(driven, "FAIL(x)")[-1].error.startswith("Odd: ")


def test_info_is_bounded():
    driven = machine(MachineState)
    driven.info_limit = 100
    assert effects_of(driven, *["INFO:k:" + "v" * 90] * 5) == []
    assert "INFO exceeds 100 characters" in effects_of(driven, "INFO:l:" + "v" * 90)[-1].error


def test_a_result_that_is_not_a_number_fails_the_actor():
    class Odd(TerminalState):
        result = float("nan")

    assert "ValueError" in talk(Odd)[-1].error


def test_transitions_are_counted_once_each():
    class Loop(ForLoopState):
        iterFin = 4900

    Loop.loopState = type("Body", (OnePassState,), {"nextState": Loop})
    assert talk(Loop) == [Finish()]


def test_a_reply_that_was_put_off_leaves_no_trace():
    class Later(MultiPassState):
        expects = ("OK:A", "OK:B")
        commands = (None, None)

        def post_transition(self):
            if "ready" not in self.info:
                raise ValueError
            self.enqueue(f"seen:{self.messages}")
            return TerminalState(self)

    effects = talk(Later, "OK:A", "OK:B", "INFO:ready:1")
    assert effects == [Send("seen:['OK:A', 'OK:B']"), Finish()]


def test_a_state_of_ones_own_needs_no_base_class():
    @implementer(IState)
    class Own:
        label = "my own"

        def receive(self, event, send):
            if isinstance(event, Answered):
                send(f"echo:{event.text}")
            return self

    assert verifyObject(IState, Own())
    assert talk(lambda worker: Own(), "OK:HELLO") == [Send("echo:OK:HELLO")]  # type: ignore[return-value]
    assert talk(lambda worker: Own(), Lost(1.0, "gone"))[-1] == Finish("gone")  # type: ignore[return-value]


def test_a_state_may_derive_from_the_base_of_all_states():
    class Own(State):
        def receive(self, event, send):
            return TerminalState(driven.worker) if isinstance(event, Answered) else self

    driven = machine(lambda worker: Own())
    assert effects_of(driven) == []
    assert driven.label == "Own"
    assert verifyObject(IState, driven.state)
    assert effects_of(driven, "OK:HELLO") == [Finish()]


def test_a_state_that_receives_nothing_fails_its_actor():
    assert talk(lambda worker: State()) == [Finish("State: NotImplementedError: ")]


def test_a_state_that_stays_keeps_its_timer():
    class Patient(OnePassState):
        expect = "OK"
        timeout = 5

    assert talk(Patient, "INFO:a:b") == [SetTimer("state1", 5)]


def test_a_timer_that_no_state_has_set_changes_nothing():
    assert talk(Greet, Elapsed(1.0, "nothing"), "OK:HELLO") == talk(Greet, "OK:HELLO")


def test_the_last_label_is_that_of_the_state_that_failed():
    driven = machine(Greet)
    effects_of(driven)
    assert (driven.label, driven.last_label) == ("Greet", "Greet")
    effects_of(driven, "FAIL(disk full)")
    assert driven.label == "ErrorState the worker answered 'FAIL(disk full)'"
    assert driven.last_label == "Greet"


# ---------------------------------------------------------------- waiting in vain


def waiting_in_vain(first, *replies):
    """Return whether the machine waits in vain after each reply, given as (command, text)."""
    driven = machine(first)
    driven.receive(Entered(0.0))
    driven.receive(Answered(0.0, HELLO))
    told = [driven.is_stranded]
    for number, text in replies:
        driven.receive(event(text, 1.0, number))
        told.append(driven.is_stranded)
    return told


class TwoReplies(CommandListState):
    commandlist = (("OK:HELLO", "run:x"), ("OK:RUNNING", None), ("OK:RETVAL(0)", None))


def test_a_state_waits_in_vain_if_its_reply_can_come_from_no_command():
    never = type("Never", (OnePassState,), {"expect": "OK:RETVAL"})
    fetch = type(
        "Fetch", (OnePassState,), {"expect": HELLO, "command": "retrieve:a", "nextState": never}
    )
    assert waiting_in_vain(fetch) == [True]
    again = type("Again", (OnePassState,), {"expect": "OK:HELLO"})
    assert waiting_in_vain(type("Greet", (again,), {"nextState": again})) == [True]


def test_a_state_does_not_wait_in_vain_for_the_second_reply_of_a_background_run():
    replies = (1, "OK:RUNNING(x)"), (1, "OK:RETVAL(0):OUTPUT():COMMAND(x)")
    assert waiting_in_vain(TwoReplies, *replies) == [False, False, False]
    silent = (1, "OK:RETVAL(0):OUTPUT():COMMAND(x)")
    assert waiting_in_vain(TwoReplies, silent) == [False, False], "it has failed"


def test_a_state_that_waits_for_an_info_or_any_reply_or_quit_may_go_on():
    for waits in ({"expect": None}, {"expect": "INFO:x"}, {"info_updated": lambda self: None}):
        last = type("Last", (MachineState,), {"expect": "OK:RETVAL"} | waits)
        assert waiting_in_vain(
            type("Greet", (OnePassState,), {"expect": HELLO, "nextState": last})
        ) == [False]
    watcher = type("Greet", (OnePassState,), {"expect": HELLO, "nextState": InfoWatcherState})
    assert waiting_in_vain(watcher) == [False]
    last = type("Last", (OnePassState,), {"expect": "OK"})
    leaving = type(
        "Leave", (OnePassState,), {"expect": HELLO, "command": "quit:", "nextState": last}
    )
    assert waiting_in_vain(leaving) == [False]


def test_a_superposition_waits_in_vain_if_none_of_its_parts_can_go_on():
    class Asks(CommandListState):
        commandlist = ((None, "echo:a"), ("OK:ECHO", None))

    class Forgets(OnePassState):
        expect = "OK:UPLOAD"

    class Both(SuperpositionState):
        state_constructors = (Asks, Forgets)

    assert waiting_in_vain(Both, (1, "OK:ECHO(a)")) == [False, True]


def test_a_state_that_cannot_say_what_it_expects_does_not_wait_in_vain():
    def get_expect(self):
        return self.nothing

    last = type("Last", (MachineState,), {"get_expect": get_expect})
    driven = machine(last)
    effects_of(driven)
    assert driven.expected is None
    greet = type("Greet", (OnePassState,), {"expect": HELLO, "nextState": last})
    assert waiting_in_vain(greet) == [False]


def test_of_a_worker_that_numbers_nothing_nobody_knows():
    assert waiting_in_vain(TwoReplies, (0, "OK:RUNNING(x)"), (0, "FAIL(no)")) == [False] * 3


def test_the_commands_of_a_worker_that_numbers_nothing_do_not_pile_up():
    class Echo(CommandListState):
        commandlist = (("OK:HELLO", "echo:0"), *[("OK:ECHO", "echo:1")] * 50, ("OK:ECHO", None))

    driven = machine(Echo)
    driven.receive(Entered(0.0))
    driven.receive(Answered(0.0, "OK:HELLO"))
    for _ in range(50):
        driven.receive(Answered(1.0, "OK:ECHO(1)"))
    assert driven.worker.sent == 51
    assert len(driven.worker.outstanding) <= 1


def test_of_commands_that_no_reply_settles_only_the_latest_are_outstanding():
    class Sends(MachineState):
        def transition(self, msg):
            for _ in range(HELD_LIMIT // 10):
                self.enqueue("echo:x")
            return self

    driven = machine(Sends)
    effects_of(driven, *["OK:STRANGE"] * 20)
    assert driven.worker.sent == 2 * HELD_LIMIT
    assert list(driven.worker.outstanding)[-1] == driven.worker.sent
    assert len(driven.worker.outstanding) <= HELD_LIMIT + HELD_LIMIT // 10
