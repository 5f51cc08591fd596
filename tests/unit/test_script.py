"""Scripts on the pure machine: answers in, effects out."""

import asyncio
import contextlib

import pytest

from mu.events import Answered, CancelTimer, Elapsed, Finish, Lost, Send, SetTimer
from mu.jobs.waiting import in_words
from mu.parameters import Params
from mu.pipelines.png2y4m import png2y4m
from mu.states import ActorFailed, CommandFailed
from mu.states.context import HELD_LIMIT
from mu.states.script import _Together
from mu.testing import FakeWorker, effects_of, machine, play, talk

HELLO = "OK:HELLO"


def sends(*args, **kwargs):
    return [effect.command for effect in talk(*args, **kwargs) if isinstance(effect, Send)]


def reply(number, text, at=1.0):
    return Answered(at, text, number)


def test_a_script_begins_with_the_hello_and_its_return_value_is_the_actors_result():
    async def script(worker):
        said = await worker.ask("echo:hi")
        return {"said": said}

    assert talk(script, HELLO) == [Send("echo:hi")]
    assert talk(script, HELLO, "OK:ECHO(hi)") == [
        Send("echo:hi"),
        Finish(result={"said": "OK:ECHO(hi)"}),
    ]


def test_each_method_sends_its_command_and_returns_what_came():
    got = []

    async def script(worker):
        await worker.set("a", "x:y")
        await worker.seti("n", 5)
        got.append(await worker.get("a"))
        ran = await worker.run("ls")
        got.append((ran.status, ran.output))
        await worker.retrieve("key", "file")
        await worker.retrieve()
        await worker.upload("key", "file")
        await worker.connect("host", 13337, "HELLO_STATE:u:1:2")
        await worker.close_connect()
        await worker.quit()

    answers = [HELLO, "OK:SET(a)", "OK:SETI(n)", "OK:GET((x)y)"]
    answers += ["OK:RETVAL(0):OUTPUT(a\nb):COMMAND(ls)", "OK:RETRIEVE(b/k)", "OK:RETRIEVE(b/k)"]
    answers += ["OK:UPLOAD(b/k)", "OK:CONNECT(x)", "OK:CLOSE_CONNECT"]
    assert sends(script, *answers) == [
        "set:a:x:y",
        "seti:n:5",
        "get:a",
        "run:ls",
        "retrieve:key\0file",
        "retrieve:",
        "upload:key\0file",
        "connect:host:13337:HELLO_STATE:u:1:2",
        "close_connect:",
        "quit:",
    ]
    assert got == ["(x)y", (0, "a\nb")]


def test_a_failed_command_raises_what_came_and_the_script_may_catch_it():
    async def script(worker):
        try:
            await worker.retrieve("k", "f")
        except CommandFailed as error:
            await worker.ask(f"echo:{error.reply}")

    assert sends(script, HELLO, "FAIL(no such key)")[-1] == "echo:FAIL(no such key)"


def test_a_failed_command_that_nobody_catches_fails_the_actor_in_words():
    async def script(worker):
        await worker.retrieve("k", "f")

    (*_, finish) = talk(script, HELLO, "FAIL(no such key)")
    assert "script: the worker answered 'FAIL(no such key)' to 'retrieve:k\\x00f'" in finish.error


def test_an_exit_status_other_than_0_raises_unless_the_script_looks_itself():
    async def strict(worker):
        await worker.run("false")

    async def loose(worker):
        ran = await worker.run("false", check=False)
        return ran.status

    failed = "OK:RETVAL(1):OUTPUT(why):COMMAND(false)"
    assert "RETVAL(1):OUTPUT(why)" in talk(strict, HELLO, failed)[-1].error
    assert talk(loose, HELLO, failed)[-1] == Finish(result=1)
    assert talk(loose, HELLO, "OK:RETVAL(-9):OUTPUT():COMMAND(x)")[-1] == Finish(result=-9)


def test_a_run_in_the_background_is_awaited_to_its_end():
    async def script(worker):
        await worker.run("slow")
        await worker.retrieve("k", "f")

    answers = [reply(1, "OK:RUNNING(slow)"), reply(1, "OK:RETVAL(0):OUTPUT():COMMAND(slow)")]
    assert sends(script, HELLO, answers[0]) == ["run:slow"]
    assert sends(script, HELLO, *answers) == ["run:slow", "retrieve:k\0f"]
    again = [reply(2, "OK:RETRIEVING(k)"), reply(2, "OK:RETRIEVE(b/k)")]
    assert talk(script, HELLO, *answers, *again)[-1] == Finish()


def test_two_background_runs_are_told_apart_by_their_numbers():
    async def run(worker, name):
        ran = await worker.run(name)
        return f"{name}={ran.output}"

    async def script(worker):
        return await worker.together(run(worker, "a"), run(worker, "b"))

    effects = talk(
        script,
        HELLO,
        reply(1, "OK:RUNNING(a)"),
        reply(2, "OK:RUNNING(b)"),
        reply(2, "OK:RETVAL(0):OUTPUT(B):COMMAND(b)"),
        reply(1, "OK:RETVAL(0):OUTPUT(A):COMMAND(a)"),
    )
    assert effects == [Send("run:a"), Send("run:b"), Finish(result=["a=A", "b=B"])]


def test_with_an_original_worker_replies_are_told_apart_by_their_kind():
    async def script(worker):
        ran, got = await worker.together(worker.run("a"), worker.get("x"))
        return [ran.output, got]

    effects = talk(script, HELLO, "OK:GET(5)", "OK:RETVAL(0):OUTPUT(A):COMMAND(a)")
    assert effects[-1].result == ["A", "5"]


def test_the_first_failure_side_by_side_ends_the_others():
    async def script(worker):
        try:
            await worker.together(worker.ask("echo:1"), worker.sleep(10), worker.ask("echo:2"))
        except CommandFailed:
            await worker.ask("echo:after")

    effects = talk(script, HELLO, reply(2, "FAIL(no)"))
    assert effects == [
        Send("echo:1"),
        SetTimer("script1", 10),
        Send("echo:2"),
        CancelTimer("script1"),
        Send("echo:after"),
    ]


def test_a_reply_that_nobody_waits_for_yet_is_kept():
    async def script(worker):
        await worker.ask("run:bg")
        await worker.ask("echo:1")
        return await worker._reply("run:bg", 1, "OK:RETVAL")

    effects = talk(
        script,
        HELLO,
        reply(1, "OK:RUNNING(bg)"),
        reply(1, "OK:RETVAL(0)"),
        reply(2, "OK:ECHO(1)"),
    )
    assert effects[-1] == Finish(result="OK:RETVAL(0)")


def test_replies_that_nobody_waits_for_are_bounded():
    async def script(worker):
        await worker.ask("echo:1")

    effects = talk(script, HELLO, *[reply(9, "OK:STRANGE")] * (HELD_LIMIT + 1))
    assert "over 1000 replies" in effects[-1].error


def test_info_is_there_and_may_be_waited_for():
    async def script(worker):
        first = await worker.wait_info("early")
        second = await worker.wait_info("late")
        return [first, second, worker.info["late"]]

    assert talk(script, "INFO:early:1", HELLO, "INFO:other:x", "INFO:late:2") == [
        Finish(result=["1", "2", "2"])
    ]


def test_sleep_is_a_timer_of_the_machine():
    async def script(worker):
        await worker.sleep(2.5)
        await worker.ask("echo:awake")

    assert talk(script, HELLO) == [SetTimer("script1", 2.5)]
    assert sends(script, HELLO, Elapsed(3.0, "script1")) == ["echo:awake"]


def test_within_raises_when_it_takes_longer_and_cancels_its_timer_when_not():
    async def script(worker):
        try:
            await worker.within(5, worker.ask("echo:1"))
        except TimeoutError:
            await worker.ask("echo:late")

    assert talk(script, HELLO, "OK:ECHO(1)") == [
        SetTimer("script1", 5),
        Send("echo:1"),
        CancelTimer("script1"),
        Finish(),
    ]
    assert sends(script, HELLO, Elapsed(6.0, "script1"))[-1] == "echo:late"


def test_a_timeout_that_nobody_catches_fails_the_actor():
    async def script(worker):
        await worker.within(5, worker.ask("echo:1"))

    assert "it took longer than 5 s" in talk(script, HELLO, Elapsed(6.0, "script1"))[-1].error


def test_a_lost_worker_ends_the_script_which_may_tidy_up():
    tidied = []

    async def script(worker):
        try:
            await worker.ask("echo:1")
        finally:
            tidied.append(True)

    assert talk(script, HELLO, Lost(2.0, "it went away"))[-1] == Finish("it went away")
    assert tidied == [True]


def test_a_script_that_awaits_something_else_fails_its_actor():
    class Other:
        def __await__(self):
            yield "something"

    async def script(worker):
        await Other()

    async def sleeper(worker):
        await asyncio.sleep(1)

    assert "await only its worker's methods" in talk(script, HELLO)[-1].error
    assert talk(sleeper, HELLO)[-1].error


def test_a_script_that_raises_fails_its_actor_and_the_exception_is_kept():
    async def script(worker):
        await worker.ask("echo:1")
        return {}["missing"]

    driven = machine(script)
    (*_, finish) = effects_of(driven, HELLO, "OK:ECHO(1)")
    assert "KeyError: 'missing' (unit/test_script.py, line " in finish.error
    assert isinstance(driven.crash, KeyError)


def test_a_script_that_never_waits_is_stopped():
    async def script(worker):
        while True:
            await worker.together()

    assert "over 10000 transitions" in talk(script, HELLO)[-1].error


def test_what_the_plan_gave_are_attributes():
    async def script(worker):
        return [worker.out_key, worker.actor, worker.job.params["n"]]

    effects = talk(script, HELLO, params={"n": 3}, actor=4, given={"out_key": "k"})
    assert effects[-1] == Finish(result=["k", 4, 3])

    async def wrong(worker):
        return worker.nothing

    assert "neither the worker nor its input has 'nothing'" in talk(wrong, HELLO)[-1].error


def test_users_see_what_a_script_waits_for():
    async def convert(worker):
        await worker.together(worker.run("x"), worker.wait_info("k"))

    driven = machine(convert)
    effects_of(driven, HELLO)
    assert driven.label.endswith("convert")
    assert driven.expected == ["OK:R", "INFO:k"]
    assert in_words(driven.expected) == "a program to end or INFO k"


@pytest.mark.parametrize("frames", [1, 3])
def test_a_script_and_the_same_pipeline_as_states_give_the_same_commands(frames):
    async def script(worker):
        await worker.seti("nonblock", 0)
        await worker.run("rm -rf ##TMPDIR##")
        await worker.run("mkdir -p ##TMPDIR##")
        await worker.set("bucket", worker.job.params.bucket)
        await worker.set("cmdinfile", "##TMPDIR##/%08d.png")
        await worker.set("cmdoutfile", "##TMPDIR##/out.y4m")
        await worker.set("fromfile", "##TMPDIR##/out.y4m")
        await worker.set("outkey", worker.out_key)
        for number, key in enumerate(worker.in_keys, 1):
            await worker.set("inkey", key)
            await worker.set("targfile", f"##TMPDIR##/{number:08d}.png")
            await worker.retrieve()
        await worker.run()
        await worker.upload()
        await worker.quit()
        return {"key": worker.out_key, "frames": frames}

    params = Params(video="v", bucket="b", in_format="png16", frames=frames, offset=0, workers=1)
    (given,) = png2y4m.plan(params)
    done = "OK:RETVAL(0):OUTPUT():COMMAND()"
    answers = [HELLO, "OK:SETI(nonblock)", done, done, *["OK:SET(x)"] * 5]
    answers += ["OK:SET(inkey)", "OK:SET(targfile)", "OK:RETRIEVE(b/k)"] * frames
    answers += [done, "OK:UPLOAD(b/k)"]
    about = {"params": params, "given": given}
    assert talk(script, *answers, **about) == talk(png2y4m.begin, *answers, **about)


def test_a_reply_that_comes_after_its_waiter_gave_up_is_dropped():
    async def script(worker):
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                await worker.within(5, worker.ask("echo:x"))
        return "done"

    driven = machine(script)
    driven.held_limit = driven.worker.held_limit = 1
    late = [
        Elapsed(6.0, "script1"),
        reply(1, "OK:ECHO"),
        Elapsed(9.0, "script2"),
        reply(2, "OK:ECHO"),
    ]
    assert effects_of(driven, HELLO, *late, Elapsed(12.0, "script3"))[-1] == Finish(result="done")


def test_a_script_that_sends_for_ever_is_stopped():
    async def script(worker):
        while True:
            worker.send("echo:x")

    assert "over 100000 commands" in talk(script, HELLO)[-1].error


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan"), "5"])
def test_a_time_that_is_none_fails_the_actor(seconds):
    async def script(worker):
        await worker.sleep(seconds)

    assert "a timeout must be a number of seconds, at least 0" in talk(script, HELLO)[-1].error


def test_what_failed_before_the_others_began_keeps_them_from_beginning():
    async def broken():
        raise ActorFailed("no")

    async def script(worker):
        await worker.together(broken(), worker.ask("echo:never"))

    (finish,) = talk(script, HELLO)
    assert finish.error.endswith("script: no")


def test_side_by_side_may_be_anything_that_can_be_awaited():
    class Later:
        def __init__(self, worker):
            self.worker = worker

        def __await__(self):
            return self.worker.ask("echo:a").__await__()

    async def script(worker):
        return await worker.together(Later(worker))

    assert talk(script, HELLO, "OK:ECHO(a)")[-1] == Finish(result=["OK:ECHO(a)"])


def test_a_failure_ends_what_the_others_do_side_by_side():
    async def broken(worker):
        await worker.ask("echo:a")
        raise ActorFailed("no")

    async def script(worker):
        pair = worker.together(worker.ask("echo:b"), worker.ask("echo:c"))
        with contextlib.suppress(ActorFailed):
            await worker.together(broken(worker), pair)
        return await worker.ask("echo:d")

    answers = [reply(1, "OK:ECHO(a)"), reply(2, "OK:ECHO(b)"), reply(3, "OK:ECHO(c)")]
    effects = talk(script, HELLO, *answers, reply(4, "OK:ECHO(d)"))
    assert effects == [*(Send(f"echo:{one}") for one in "abcd"), Finish(result="OK:ECHO(d)")]


# ---------------------------------------------------------------- things that were started


def test_what_was_started_runs_while_the_script_goes_on_and_returns_where_it_is_awaited():
    async def script(worker):
        fetching = await worker.start(worker.get("x"))
        ran = await worker.run("a")
        return [ran.output, await fetching, await fetching]

    ended = [reply(2, "OK:RETVAL(0):OUTPUT(A):COMMAND(a)"), reply(1, "OK:GET(5)")]
    for answers in (ended, ended[::-1]):
        effects = talk(script, HELLO, *answers)
        assert effects == [Send("get:x"), Send("run:a"), Finish(result=["A", "5", "5"])]


def test_what_was_started_fails_where_it_is_awaited_and_nothing_else():
    async def script(worker):
        fetching = await worker.start(worker.retrieve("k", "f"))
        ran = await worker.run("a")
        try:
            await fetching
        except CommandFailed as error:
            return [ran.output, error.reply]

    ended = [reply(1, "FAIL(no)"), reply(2, "OK:RETVAL(0):OUTPUT(A):COMMAND(a)")]
    for answers in (ended, ended[::-1]):
        assert talk(script, HELLO, *answers)[-1] == Finish(result=["A", "FAIL(no)"])


def test_an_actor_ends_when_all_that_it_started_has_ended():
    async def script(worker):
        await worker.start(worker.upload("k", "f"))
        await worker.start(worker.upload("l", "g"))
        return "done"

    answers = [HELLO, reply(1, "OK:UPLOAD(k)"), reply(2, "OK:UPLOAD(l)")]
    assert talk(script, *answers) == [
        Send("upload:k\0f"),
        Send("upload:l\0g"),
        Finish(result="done"),
    ]
    assert len(talk(script, *answers[:2])) == 2
    (*_, finish) = talk(script, HELLO, reply(2, "FAIL(disk full)"))
    assert "FAIL(disk full)" in finish.error


def test_what_nobody_awaited_fails_the_script_at_its_end_even_if_much_else_was_started():
    async def script(worker):
        await worker.start(worker.upload("k", "f"))
        for _ in range(3):
            await (await worker.start(worker.get("x")))

    answers = [HELLO, reply(1, "FAIL(no)"), *(reply(number, "OK:GET(5)") for number in (2, 3, 4))]
    assert len(talk(script, *answers[:-1])) == 4
    assert "FAIL(no)" in talk(script, *answers)[-1].error


def test_a_script_that_fails_ends_what_it_started():
    closed = []

    async def slow(worker):
        try:
            await worker.sleep(60)
        finally:
            closed.append("slow")

    async def script(worker):
        await worker.start(slow(worker))
        await worker.start(worker.get("x"))
        await worker.run("a")

    effects = talk(script, HELLO, reply(2, "FAIL(no)"))
    assert "FAIL(no)" in effects[-1].error
    assert CancelTimer("script1") in effects
    assert closed == ["slow"]


def test_of_what_was_ended_an_error_says_so_wherever_else_it_is_awaited():
    handles = []

    async def first(worker):
        handles.insert(0, await worker.start(worker.get("x")))
        await worker.run("a")

    async def second(worker):
        await worker.get("y")
        try:
            await handles[0]
        except ActorFailed as error:
            return str(error)

    async def script(worker):
        following = await worker.start(second(worker))
        with contextlib.suppress(CommandFailed):
            await worker.together(first(worker))
        return await following

    numbers = {"get:y": 1, "get:x": 2, "run:a": 3}
    assert sends(script, HELLO) == list(numbers)
    ended = [reply(3, "FAIL(no)"), reply(1, "OK:GET(5)")]
    for answers in (ended, ended[::-1]):
        effects = talk(script, HELLO, *answers)
        assert effects[-1] == Finish(result="it was ended together with what started it")


def test_a_worker_that_is_lost_ends_what_was_started_too():
    closed = []

    async def slow(worker):
        try:
            await worker.sleep(60)
        finally:
            closed.append("slow")

    async def script(worker):
        await worker.start(slow(worker))

    assert talk(script, HELLO, Lost(2.0, "gone"))[-1] == Finish("gone")
    assert closed == ["slow"]


def test_a_script_knows_whether_its_worker_numbers_its_replies():
    async def script(worker):
        return worker.numbered

    assert play(machine(script)).finish == Finish(result=True)
    assert play(machine(script), FakeWorker(numbered=False)).finish == Finish(result=False)


def test_what_waits_for_several_things_or_for_a_task_has_no_name_of_its_own():
    assert _Together(()).wanted == ""
