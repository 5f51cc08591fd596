"""Branches, watchers, and states side by side."""

import pytest

from mu.events import CancelTimer, Elapsed, Finish, Lost, Send, SetTimer
from mu.parameters import Params
from mu.states import (
    CommandListState,
    ErrorState,
    ForLoopState,
    IfElseState,
    InfoWatcherState,
    JobFacts,
    OnePassState,
    State,
    SuperpositionState,
    TerminalState,
    connect_command,
)
from mu.states.context import HELD_LIMIT
from mu.testing import effects_of, machine, talk


def sends(*args, **kwargs):
    return [effect.command for effect in talk(*args, **kwargs) if isinstance(effect, Send)]


class Leave(OnePassState):
    command = "quit:"


def one(wanted, does, then=TerminalState, **more):
    """A one-pass state class."""
    attributes = {"expect": wanted, "command": does, "nextState": then}
    return type("One", (OnePassState,), attributes | more)


def both(*parts, then=Leave, **more):
    attributes = {"state_constructors": parts, "nextState": then}
    return type("Both", (SuperpositionState,), attributes | more)


# ---------------------------------------------------------------- branches


@pytest.mark.parametrize(("answer", "went"), [("OK:GET(1)", "yes:"), ("OK:GET(0)", "no:")])
def test_a_branch_goes_where_its_test_says(answer, went):
    class Branch(IfElseState):
        expect = "OK:GET"
        consequentState = one(None, "yes:")
        alternativeState = one(None, "no:")

        def testfn(self):
            return self.messages[-1] == "OK:GET(1)"

    assert sends(Branch, answer) == [went]


# ---------------------------------------------------------------- watchers


class Watch(InfoWatcherState):
    command = "echo:seen"


def test_a_watcher_fires_once_on_any_info_that_arrives_while_it_is_current():
    assert talk(Watch) == []
    assert talk(Watch, "INFO:any:1", "INFO:any:2") == [Send("echo:seen"), Finish()]


def test_a_watcher_takes_no_reply():
    assert "expected 'INFO:'" in talk(Watch, "OK:HELLO")[-1].error


def test_a_watcher_sees_an_earlier_info_if_its_constructor_looks():
    class Looks(Watch):
        def __init__(self, prevState, actorNum=0):
            super().__init__(prevState, actorNum)
            if "key" in self.info:
                self.kick()

    First = one("OK:HELLO", None, Looks)
    assert sends(First, "OK:HELLO", "INFO:key:1") == ["echo:seen"]
    assert sends(First, "INFO:key:1", "OK:HELLO") == ["echo:seen"]


def test_a_watcher_may_wait_for_a_key_of_its_own():
    class Picky(Watch):
        def info_updated(self):
            if self.info.get("key") == "go":
                self.kick()

    assert sends(Picky, "INFO:key:wait", "INFO:other:go", "INFO:key:go") == ["echo:seen"]


# ---------------------------------------------------------------- side by side


def test_each_reply_goes_to_the_first_part_that_expects_it():
    Two = both(one("OK:A", "a:"), one("OK:B", "b:"))
    assert sends(Two, "OK:B", "OK:A") == ["b:", "a:", "quit:"]
    Same = both(one("OK:A", "first:"), one("OK:A", "second:"))
    assert sends(Same, "OK:A", "OK:A") == ["first:", "second:", "quit:"]


def test_it_is_done_when_all_parts_are_terminal_and_not_before():
    Two = both(one("OK:A", "a:"), one("OK:B", "b:"))
    assert talk(Two, "OK:A") == [Send("a:")]
    assert talk(Two, "OK:A", "OK:B")[-1] == Finish()


def test_parts_that_can_run_at_once_run_last_part_first_each_until_it_waits():
    Two = both(
        one(None, "a1:", one(None, "a2:", one("OK:A", None))),
        one(None, "b1:", one("OK:B", None)),
    )
    assert sends(Two) == ["b1:", "a1:", "a2:"]


def test_a_reply_that_no_part_expects_is_kept_and_offered_again():
    Two = both(one("OK:A", "a:", one("OK:LATE", "late:")), one("OK:B", "b:"))
    assert sends(Two, "OK:LATE", "OK:B", "OK:A") == ["b:", "a:", "late:", "quit:"]


def test_a_reply_that_no_part_expects_may_belong_to_what_follows():
    Two = both(one("OK:A", "a:"), then=one("OK:NEXT", "next:"))
    assert sends(Two, "OK:NEXT", "OK:A") == ["a:", "next:"]


def test_kept_replies_are_bounded_and_the_actor_says_what_it_waits_for():
    Two = both(one("OK:A", None), one("OK:B", None))
    effects = talk(Two, *["OK:STRANGE"] * (HELD_LIMIT + 1))
    assert "this one expects ['OK:A', 'OK:B']" in effects[-1].error


def test_an_error_in_any_part_fails_the_whole():
    Fails = both(
        one("OK:A", "a:", staticmethod(lambda before: ErrorState(before, "no luck"))),
        one("OK:B", "b:"),
    )
    assert "no luck" in talk(Fails, "OK:A")[-1].error


def test_a_fail_reply_or_a_lost_worker_fails_the_whole():
    Two = both(one("OK:A", None), one("OK:B", None))
    assert "FAIL(disk)" in talk(Two, "FAIL(disk)")[-1].error
    assert "it went away" in talk(Two, Lost(1.0, "it went away"))[-1].error


def test_one_inside_another():
    Inner = both(one("OK:A", "a:"), one("OK:B", "b:"), then=one(None, "inner:"))
    Outer = both(Inner, one("OK:C", "c:"))
    assert sends(Outer, "OK:C", "OK:B", "OK:A") == ["c:", "b:", "a:", "inner:", "quit:"]


def test_parts_see_the_superpositions_own_past_and_its_actor_number():
    seen = []

    class Part(OnePassState):
        expect = "OK"

        def __init__(self, prevState, actorNum):
            seen.append((type(prevState).__name__, prevState.messages, actorNum))
            super().__init__(prevState, actorNum)

    First = one("OK:HELLO", None, both(Part, Part))
    driven = machine(First, actor=3)
    effects_of(driven, "OK:HELLO")
    assert seen == [("One", ["OK:HELLO"], 3)] * 2
    assert [name for _, name in driven.worker.stateinfo] == ["One", "Both", "Part", "Part"]
    assert driven.state.messages == []


def test_post_transition_comes_once_in_place_of_the_next_state():
    def post_transition(self):
        self.enqueue("over:")
        return TerminalState(self)

    Two = both(one("OK:A", "a:"), one("OK:B", "b:"), post_transition=post_transition)
    assert sends(Two, "OK:A", "OK:B") == ["a:", "b:", "over:"]


def test_info_reaches_each_part_and_those_it_wakes_run_last_part_first():
    def watcher(command):
        return type("Watcher", (InfoWatcherState,), {"command": command})

    Two = both(watcher("first:"), watcher("second:"), one("OK:A", "a:"))
    assert sends(Two, "INFO:k:v") == ["second:", "first:"]
    assert sends(Two, "INFO:k:v", "INFO:k:v", "OK:A") == ["second:", "first:", "a:", "quit:"]


def test_a_superposition_that_overrides_info_updated_decides_for_its_parts():
    def info_updated(self):
        self.enqueue("echo:mine")

    Two = both(type("W", (InfoWatcherState,), {"command": "no:"}), info_updated=info_updated)
    assert sends(Two, "INFO:k:v") == ["echo:mine"]


def test_loops_side_by_side_count_each_on_its_own():
    def loop(key, command):
        Loop = type("Loop", (ForLoopState,), {"iterKey": key, "iterFin": 2})
        Loop.loopState = type(  # type: ignore[attr-defined]
            "Body",
            (CommandListState,),
            {"commandlist": ((None, command), None), "nextState": Loop},
        )
        return Loop

    Two = both(loop("i", "echo:i"), loop("j", "run:j"))
    answers = ["OK:ECHO", "OK:RETVAL", "OK:ECHO", "OK:RETVAL"]
    assert sends(Two, *answers) == ["run:j", "echo:i", "echo:i", "run:j", "quit:"]


def test_a_background_run_beside_quick_commands():
    Slow = type(
        "Slow", (CommandListState,), {"commandlist": ((None, "run:slow"), ("OK:RETVAL(0)", None))}
    )
    Quick = type("Quick", (CommandListState,), {"commandlist": ((None, "echo:1"), "echo:2", None)})
    answers = ["OK:ECHO(1)", "OK:RETVAL(0)", "OK:ECHO(2)"]
    assert sends(both(Slow, Quick), *answers) == ["echo:1", "run:slow", "echo:2", "quit:"]


def test_a_parts_timeout_fails_the_whole_and_names_the_part():
    Two = both(one("OK:A", None, timeout=5), one("OK:B", None))
    assert talk(Two) == [SetTimer("state1", 5)]
    assert "One took longer than its timeout of 5 s" in talk(Two, Elapsed(6.0, "state1"))[-1].error
    assert talk(Two, "OK:A")[-1] == CancelTimer("state1")


def test_a_part_that_says_not_now_keeps_the_reply():
    class Later(OnePassState):
        expect = "OK:A"

        def transition(self, msg):
            if "ready" not in self.info:
                raise ValueError
            return super().transition(msg)

    Two = both(type("Later2", (Later,), {"command": "a:"}), one("OK:B", "b:"))
    assert sends(Two, "OK:A", "INFO:ready:1", "OK:B") == ["a:", "b:", "quit:"]


def test_an_empty_superposition_goes_straight_on():
    assert sends(both()) == ["quit:"]


def test_a_branch_without_a_test_of_its_own_takes_the_consequent():
    Branch = type("Branch", (IfElseState,), {"consequentState": one(None, "yes:")})
    assert sends(Branch) == ["yes:"]


class Stays(State):
    def receive(self, event, send):
        return self


def test_a_part_that_leaves_the_class_states_fails_the_whole():
    (finish,) = talk(both(one("OK:A", None, then=lambda *states: Stays())), "OK:A")
    assert "TypeError: a part must be a MachineState, not <" in finish.error


# ---------------------------------------------------------------- states that are passed on


def test_a_worker_is_connected_to_the_relay_under_its_jobs_name():
    job = JobFacts("j1", Params(), 2, "host:13337", "uniq")
    assert connect_command(job, 1, 2) == "connect:host:13337:HELLO_STATE:uniq:1:2"


def test_without_a_relay_there_is_no_such_command():
    with pytest.raises(RuntimeError, match="the daemon has no relay"):
        connect_command(JobFacts("j1", Params(), 2), 1, 2)
