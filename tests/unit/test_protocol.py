"""The worker port, over real TLS in memory: who gets in, and what is said."""

import pytest
from kit.parts import Line, MemoryWorker, Port, make_job, new_job
from twisted.logger import capturedLogs, formatEvent
from twisted.test.iosim import FakeTransport, connect

from mu.journal.records import Launched, Launching, Planned
from mu.messages import Hello
from mu.net.certificates import Authority
from mu.net.strangers import MOST_REASONS, SUM_S
from mu.states import CommandListState, MachineState, OnePassState, TerminalState
from mu.wire import HEADER_BYTES, frame


class Leave(OnePassState):
    expect = "OK:ECHO"
    command = "quit:"


class Greet(CommandListState):
    commandlist = (("OK:HELLO", "set:a:1"), "echo:hi")
    nextState = Leave


class Patient(MachineState):
    """Waits for ever."""


def logged(logs):
    return [formatEvent(event) for event in logs]


OURS = Hello(session="ab", launch="l1")


def with_launches(job, *ids):
    for number, name in enumerate(ids):
        job.record(Launching(0.0, name, number))
    return job


# ---------------------------------------------------------------- who gets in


def test_a_worker_with_its_jobs_certificate_is_served():
    line = Port(make_job(Greet)).join()
    assert line.heard == [b"set:a:1"]


def test_a_connection_without_a_certificate_is_refused_with_a_logged_reason():
    with capturedLogs() as logs:
        line = Port(make_job(Greet)).connect(None)
        line.say(b"OK:HELLO")
    assert not line.open
    assert line.heard == []
    assert any("did not return a certificate" in text for text in logged(logs))


def test_a_certificate_of_another_ca_is_refused_with_a_logged_reason():
    with capturedLogs() as logs:
        line = Port(make_job(Greet)).connect(Authority.new().mint_job("j1", 600))
        line.say(b"OK:HELLO")
    assert not line.open
    assert any("refused: TLS: " in text and "verify failed" in text for text in logged(logs))


def test_a_certificate_that_names_no_job_is_refused_with_a_logged_reason():
    port = Port(make_job(Greet))
    with capturedLogs() as logs:
        line = port.connect(port.authority.mint_server("somewhere"))
        line.say(b"OK:HELLO")
    assert not line.open
    assert line.heard == []
    assert any("refused: TLS: " in text or "names no job" in text for text in logged(logs))


def test_an_expired_certificate_is_refused():
    port = Port(make_job(Greet))
    line = port.connect(port.authority.mint_job("j1", -1))
    line.say(b"OK:HELLO")
    assert not line.open


def test_a_worker_refuses_a_coordinator_of_another_ca():
    port = Port(make_job(Greet))
    line = port.connect(port.authority.mint_job("j1", 600), Authority.new())
    assert not line.open


def test_a_connection_that_says_nothing_is_closed_in_time():
    port = Port(make_job(Greet), hello_s=5)
    line = port.connect(port.authority.mint_job("j1", 600))
    line.let_pass(4)
    assert line.open
    line.let_pass(2)
    assert not line.open
    assert port.factory.connections == set()


def silent(port):
    """Return a connection that never begins a TLS handshake."""
    worker = MemoryWorker()
    server = port.tls.buildProtocol(None)
    if server is None:
        return None
    pump = connect(server, FakeTransport(server, True), worker, FakeTransport(worker, False))
    return Line(port.clock, worker, pump)


def test_silent_connections_have_a_small_limit_and_the_oldest_makes_way():
    port = Port(make_job(Greet), max_handshakes=2)
    lines = [silent(port) for _ in range(4)]
    assert [line.open for line in lines] == [False, False, True, True]
    assert port.join().heard == [b"set:a:1"], "a good worker is served"
    assert [line.open for line in lines] == [False, False, False, True]
    assert len(port.factory.connections) == 2


def test_silent_connections_do_not_keep_a_worker_out_when_all_places_are_taken():
    port = Port(make_job(Greet, workers=3), max_connections=3)
    lines = [silent(port) for _ in range(3)]
    workers = [port.join() for _ in range(3)]
    assert [line.open for line in lines] == [False] * 3
    assert [worker.heard for worker in workers] == [[b"set:a:1"]] * 3
    with capturedLogs() as logs:
        assert silent(port) is None
    assert any("refused: 3 connections are open" in text for text in logged(logs))


def test_refusals_of_a_kind_are_one_line_and_a_sum():
    port = Port(make_job(Greet), max_handshakes=1)
    with capturedLogs() as logs:
        lines = [silent(port) for _ in range(100)]
        assert sum(line.open for line in lines) == 1
        port.connect(port.authority.mint_server("somewhere"))
        port.clock.advance(SUM_S)
    texts = [text for text in logged(logs) if "refused" in text]
    dropped = "others connected before its TLS handshake had finished (max_handshakes)"
    assert len(texts) == 3
    assert texts[0].endswith(f"refused: {dropped}")
    assert "refused: TLS: " in texts[1]
    assert texts[2] == f"98 more connections refused within 10 s: 98 x {dropped}"
    with capturedLogs() as logs:
        port.clock.advance(10 * SUM_S)
    assert not any("more" in text for text in logged(logs))


def test_ever_new_reasons_are_summed_up_too():
    port = Port(make_job(Greet))
    with capturedLogs() as logs:
        for number in range(100):
            port.connect(port.authority.mint_job("j1", 600)).say(b"hello %d" % number)
        port.clock.advance(SUM_S)
    texts = [text for text in logged(logs) if "refused" in text]
    assert len(texts) == MOST_REASONS + 1
    assert texts[-1].endswith("80 more connections refused within 10 s: 80 x other reasons")


def test_a_worker_of_a_job_that_is_not_known_is_let_in_and_told_to_quit():
    port = Port(make_job(Greet))
    line = port.join("gone")
    assert line.heard == [b"quit:"]


def test_a_worker_of_a_job_that_ended_is_told_to_quit_and_counted():
    job = make_job(Greet)
    job.stop("cancelled", "enough")
    line = Port(job).join()
    assert line.heard == [b"quit:"]
    assert job.dismissed == 1


def test_original_workers_play_only_as_many_actors_as_workers_were_launched():
    job = new_job(Greet, workers=3, engine="lambda")
    job.record(Planned([{}] * 3, [0, 1, 2]))
    port = Port(with_launches(job, "l1", "l2", "l3"))
    job.launches.invoked("l1", 0.0)
    job.launches.invoked("l2", 0.0)
    lines = [port.join() for _ in range(3)]
    assert [line.heard for line in lines] == [[b"set:a:1"], [b"set:a:1"], [b"quit:"]]
    late = port.join(hello=Hello("aa", "l1"))
    assert late.heard == [b"quit:"], "an original worker has taken this launch"
    assert job.dismissed == 2


def test_an_original_worker_that_comes_late_still_plays():
    job = with_launches(make_job(Greet, engine="lambda"), "l1")
    job.record(Launched("l1", "late", 0.0))
    assert Port(job).join().heard == [b"set:a:1"]


def test_a_worker_of_ours_without_a_launch_plays_only_in_external_jobs():
    job = with_launches(make_job(Greet, workers=2, engine="lambda"), "l1", "l2")
    port = Port(job)
    assert [port.join(hello=Hello(name)).heard for name in ("aa", "bb")] == [[b"quit:"]] * 2
    assert port.join(hello=Hello("aa", "l1")).heard[0] == b"welcome:0:1:0"


def test_workers_of_an_external_job_play_only_the_actors_that_wait():
    job = make_job(Greet, workers=2)
    port = Port(job)
    lines = [port.join() for _ in range(4)]
    assert [line.heard[-1] for line in lines] == [b"set:a:1", b"set:a:1", b"quit:", b"quit:"]


def test_a_second_worker_of_one_launch_is_told_to_quit_and_counted():
    job = with_launches(make_job(Greet, workers=2), "l1", "l2")
    port = Port(job)
    assert port.join(hello=Hello("aa", "l1")).heard[0] == b"welcome:0:1:0"
    assert port.join(hello=Hello("bb", "l1")).heard == [b"quit:"]
    assert port.join(hello=Hello("cc", "l2")).heard[0] == b"welcome:1:1:0"
    assert job.dismissed == 1


def test_a_worker_of_a_launch_that_is_not_ours_is_told_to_quit():
    job = with_launches(make_job(Greet), "l1")
    assert Port(job).join(hello=Hello("aa", "other")).heard == [b"quit:"]


def test_a_worker_too_many_is_told_to_quit():
    job = make_job(Greet)
    port = Port(job)
    port.join()
    assert port.join().heard == [b"quit:"]


def test_a_worker_that_was_told_to_quit_and_stays_is_cut():
    line = Port(make_job(Greet)).join("gone")
    assert line.open
    line.let_pass(11)
    assert not line.open


# ---------------------------------------------------------------- the conversation


def test_an_original_worker_hears_no_extension():
    line = Port(make_job(Greet)).join()
    assert line.say(b"OK:SET(a)") == [b"set:a:1", b"echo:hi"]
    assert line.say(b"OK:ECHO(hi)") == [b"set:a:1", b"echo:hi", b"quit:"]


def test_our_worker_is_welcomed_before_its_first_command_and_numbers_its_replies():
    job = with_launches(make_job(Greet), "l1")
    line = Port(job).join(hello=OURS)
    assert line.heard == [b"welcome:0:1:0", b"set:a:1"]
    line.say(b"RE:1:OK:SET(a)", b"RE:2:OK:ECHO(hi)")
    assert line.heard[2:] == [b"echo:hi", b"quit:"]
    assert job.actors[0].state == "done"


def test_frames_may_come_byte_by_byte():
    line = Port(make_job(Greet)).join()
    for byte in frame(b"OK:SET(a)"):
        line.send(bytes([byte]))
    assert line.heard == [b"set:a:1", b"echo:hi"]


def test_replies_that_come_together_are_handled_in_order():
    job = make_job(Greet)
    line = Port(job).join()
    line.say(b"OK:SET(a)", b"OK:ECHO(hi)")
    assert line.heard == [b"set:a:1", b"echo:hi", b"quit:"]
    assert job.actors[0].state == "done"


def test_quit_is_sent_for_a_machine_that_ends_without_it():
    class End(CommandListState):
        commandlist = (("OK:HELLO", "echo:x"), None)

    line = Port(make_job(End)).join()
    assert line.say(b"OK:ECHO(x)") == [b"echo:x", b"quit:"]


def test_bytes_that_are_no_utf8_go_through_states_unaltered():
    class Back(OnePassState):
        expect = "OK:GET"

        def post_transition(self):
            self.enqueue("echo:" + self.messages[-1])
            return TerminalState(self)

    class Ask(OnePassState):
        expect = "OK:HELLO"
        command = "get:x"
        nextState = Back

    line = Port(make_job(Ask)).join()
    assert line.say(b"OK:GET(\xff\x00\xe9)")[1] == b"echo:OK:GET(\xff\x00\xe9)"


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "must begin with 12 decimal digits"),
        (frame(b"x" * 2000)[:HEADER_BYTES], "a frame must have at most 1024 bytes, got 2000"),
        (b"999999999999 ", "got 999999999999"),
    ],
)
def test_a_bad_frame_ends_its_connection_and_no_other(sent, says):
    job = make_job(Greet, workers=2)
    port = Port(job, frame_limit=1024)
    bad, good = port.join(), port.join()
    with capturedLogs() as logs:
        bad.send(sent)
    assert not bad.open
    assert any(says in text for text in logged(logs))
    assert job.actors[0].state == "failed"
    assert says in job.actors[0].error
    assert good.say(b"OK:SET(a)", b"OK:ECHO(hi)")[-1] == b"quit:"
    assert job.actors[1].state == "done"


def test_a_bad_frame_before_the_hello_is_refused_with_a_logged_reason():
    port = Port(make_job(Greet))
    line = port.connect(port.authority.mint_job("j1", 600))
    with capturedLogs() as logs:
        line.say(b"HELO")
    assert not line.open
    assert any("must begin with OK:HELLO, not 'HELO'" in text for text in logged(logs))


def test_a_welcomed_worker_that_speaks_without_numbers_is_cut():
    job = with_launches(make_job(Greet), "l1")
    line = Port(job).join(hello=OURS)
    line.say(b"OK:SET(a)")
    assert not line.open
    line.let_pass(10)
    assert "RE:" in job.actors[0].error


def test_a_lost_worker_fails_its_actor_with_a_sentence():
    job = make_job(Greet)
    line = Port(job).join()
    line.hang_up()
    assert job.actors[0].state == "failed"
    assert job.actors[0].error.startswith("Greet: its worker at ")
    assert "is gone: " in job.actors[0].error


def test_a_malformed_info_fails_its_actor():
    job = make_job(Patient)
    line = Port(job).join()
    assert line.say(b"INFO:nothing") == [b"quit:"]
    assert "an INFO must be INFO:key:value, not 'INFO:nothing'" in job.actors[0].error


def test_live_output_is_kept_for_people_and_not_shown_to_states():
    job = with_launches(make_job(Greet), "l1")
    line = Port(job).join(hello=OURS)
    line.say(b"LOG:1:half a line,", b"LOG:1: the rest\xff\n")
    assert [piece.text for piece in job.output.pieces] == [b"half a line,", b" the rest\xff\n"]
    assert job.actors[0].last_reply == ""


def test_replies_are_acknowledged_before_the_worker_has_too_many():
    job = with_launches(make_job(Patient), "l1")
    line = Port(job).join(hello=OURS)
    line.say(*[b"RE:0:INFO:k:v"] * 63)
    assert line.heard == [b"welcome:0:1:0"]
    line.say(b"RE:0:INFO:k:v")
    assert line.heard[1:] == [b"ack:64"]
    line.say(b"RE:0:INFO:k:" + b"v" * 2**20)
    assert line.heard[2:] == [b"ack:65"]


def test_an_original_worker_is_acknowledged_nothing():
    line = Port(make_job(Patient)).join()
    assert line.say(*[b"INFO:k:v"] * 1000) == []


# ---------------------------------------------------------------- silence


def test_a_ping_is_answered():
    job = with_launches(make_job(Patient), "l1")
    line = Port(job).join(hello=OURS)
    assert line.say(b"ping:7")[-1] == b"pong:7"


def test_a_silent_worker_is_asked_and_then_given_up():
    job = with_launches(make_job(Patient), "l1")
    line = Port(job, heartbeat_s=10, silence_s=30).join(hello=OURS)
    line.let_pass(10)
    assert line.heard[-1].startswith(b"ping:")
    line.say(b"pong:")
    line.let_pass(10)
    line.let_pass(10)
    assert line.open
    line.let_pass(10)
    assert not line.open
    line.let_pass(10)
    assert "it was silent for 30 s" in job.actors[0].error


def test_an_original_worker_is_not_asked():
    job = make_job(Patient)
    line = Port(job, heartbeat_s=10, silence_s=30).join()
    for _ in range(5):
        line.let_pass(10)
    assert line.heard == []
    assert line.open


def test_half_a_frame_and_silence_ends_any_worker():
    job = make_job(Patient)
    line = Port(job, heartbeat_s=10, silence_s=30).join()
    line.send(frame(b"OK:SET(a)")[:-3])
    for _ in range(4):
        line.let_pass(10)
    assert not line.open
    assert "it was silent for 30 s in the middle of a frame" in job.actors[0].error


def test_a_connection_too_many_is_refused_with_a_logged_reason():
    port = Port(make_job(Patient, workers=2), max_connections=1)
    port.join()
    with capturedLogs() as logs:
        assert port.tls.buildProtocol("somebody") is None
    assert any(
        "connection from somebody refused: 1 connections are open" in text for text in logged(logs)
    )


def test_a_waiting_workers_ping_is_answered():
    job = with_launches(make_job(Greet, workers=0), "l1")
    assert Port(job).join(hello=OURS).say(b"ping:7")[-1] == b"pong:7"


@pytest.mark.parametrize("said", [b"ping:" + b"x" * 1000, b"RE:" + b"9" * 5000 + b":OK"])
def test_numbers_and_pings_are_bounded(said):
    job = with_launches(make_job(Patient), "l1")
    line = Port(job).join(hello=OURS)
    line.say(said)
    assert not line.open


def test_a_session_that_is_not_known_or_has_ended_is_told_to_quit():
    job = make_job(Greet, workers=3)
    port = Port(job)
    assert port.join(hello=Hello("aa", "", received=3)).heard == [b"quit:"]
    line = port.join(hello=Hello("bb"))
    line.say(b"RE:1:OK:SET(a)", b"RE:2:OK:ECHO(hi)")
    assert line.heard[-1] == b"quit:"
    assert port.join(hello=Hello("bb", "", 3, 0, 2)).heard == [b"quit:"]
    assert job.dismissed == 2


def test_a_worker_that_takes_too_long_is_told_to_quit():
    job = make_job(Patient, worker_timeout_s=60.0)
    line = Port(job).join()
    line.let_pass(61)
    assert line.heard == [b"quit:"]
    assert job.actors[0].error == "Patient: its worker took longer than 60 s"


# ---------------------------------------------------------------- jobs in motion


def test_a_worker_that_comes_before_the_plan_waits_for_it():
    job = with_launches(make_job(Greet, workers=0), "l1")
    line = Port(job).join(hello=OURS)
    assert line.heard == [b"welcome:-:0:0"]
    assert line.say(b"pong:") == [b"welcome:-:0:0"]
    job.record(Planned([{}], [0]))
    job.begin()
    assert line.heard == [b"welcome:-:0:0", b"welcome:0:1:0", b"set:a:1"]


def test_a_waiting_worker_that_leaves_is_forgotten():
    job = with_launches(make_job(Greet, workers=0), "l1", "l2")
    port = Port(job)
    port.join(hello=OURS).hang_up()
    line = port.join(hello=Hello("cd", "l2"))
    job.record(Planned([{}], [0]))
    job.begin()
    assert line.heard[-1] == b"set:a:1"


def test_stopping_a_job_tells_its_workers_to_quit():
    job = make_job(Patient, workers=2)
    port = Port(job)
    lines = [port.join(), port.join()]
    job.stop("cancelled", "cancelled by request")
    assert [line.heard for line in lines] == [[b"quit:"], [b"quit:"]]
    assert job.counts["cancelled"] == 2


def test_a_state_that_raises_is_logged_with_its_trace():
    class Broken(OnePassState):
        expect = "OK:HELLO"

        def post_transition(self):
            raise LookupError("where is it")

    job = make_job(Broken)
    with capturedLogs() as logs:
        line = Port(job).join()
    assert line.heard == [b"quit:"]
    assert job.actors[0].error.startswith("Broken: LookupError: where is it (unit/test_protocol.py")
    assert any("Traceback" in text and "post_transition" in text for text in logged(logs))
