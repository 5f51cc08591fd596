"""The output of commands: how it is written and shown, what is missing, which input it is of."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.journal import HeldJournal
from kit.parts import OneState, Port, Printed, make_spec, recorded_job
from kit.states import hello
from mu_worker.excerpt import Excerpt

from mu.jobs.recovery import recover
from mu.journal.records import Planned
from mu.messages import Hello
from mu.output.completion import missing, read_excerpt
from mu.output.pieces import CUT, FILL, NOTE, PLACE, TEXT, Piece, lines_of, read_entries
from mu.output.transcript import Transcript, View
from mu.pipelines.map import map_pipeline
from mu.states import OnePassState
from mu.testing import FakeWorker, machine, play
from mu.wire import frame

EPOCH = b"1970-01-01T00:00:00.000Z"


def written(*pieces):
    """Return the lines of pieces in the log of actor 3."""
    return b"".join(line for piece in pieces for line in lines_of(3, piece))


def piece(text, source="", command=1, attempt=1, kind=TEXT):
    return Piece(0.0, attempt, command, source, text, kind)


def log(*pieces):
    return Transcript(list(read_entries(written(*pieces))))


# ---------------------------------------------------------------- on disk


def test_each_line_says_when_it_came_of_which_command_and_of_which_input():
    assert written(piece(b"one\nrest", "a b.jpg", command=2)) == (
        EPOCH + b" 3.1.2 a%20b.jpg | one\n" + EPOCH + b" 3.1.2 a%20b.jpg + rest\n"
    )
    assert written(piece(b"1200", kind=CUT)) == EPOCH + b" 3.1.1 - ~ 1200\n"


@given(
    st.lists(
        st.tuples(st.binary(max_size=40), st.text(max_size=5), st.sampled_from((TEXT, FILL))),
        max_size=8,
    )
)
def test_what_is_written_is_read_back(given):
    pieces = [piece(text, source, kind=kind) for text, source, kind in given if text]
    read = [(entry.source, entry.kind, entry.text) for entry in read_entries(written(*pieces))]
    for one in pieces:
        text = b""
        while text != one.text:
            source, kind, more = read.pop(0)
            assert (source, kind) == (one.source, one.kind)
            text += more
    assert read == []


def test_a_long_text_becomes_lines_a_part_at_a_time_and_parts_end_with_lines():
    parts = list(lines_of(0, piece(b"x" * 99 + b"\n" + b"\n" * 100_000)))
    assert len(parts) > 5
    assert max(map(len, parts)) < 2**20
    assert b"".join(entry.text for part in parts for entry in read_entries(part)) == (
        b"x" * 99 + b"\n" * 100_001
    )
    assert all(b" + " not in part for part in parts)


@pytest.mark.parametrize("at", [-1e20, 1e20, float("nan")])
def test_a_time_that_no_clock_shows_costs_no_output(at):
    assert next(lines_of(0, Piece(at, 1, 1, "", b"x"))).startswith(EPOCH)


@pytest.mark.parametrize(
    "damage", [b"hm\n\n", b"t 1.%b.1 - | x\n" % (b"9" * 9999), b"t 1.1.1 - ^ 1\n"]
)
def test_half_a_line_and_what_is_no_line_are_left_out(damage):
    whole = written(piece(b"a\n"), piece(b"b\n"))
    assert [entry.text for entry in read_entries(damage + whole[:-1])] == [b"a\n"]
    assert list(read_entries(b"t 1.1.1 - ~ many\n")) == []


# ---------------------------------------------------------------- as it is shown


def test_each_line_begins_with_its_input():
    of = log(
        piece(b"set up\n"),
        piece(b"1 of 2\n2 ", "a b.jpg"),
        piece(b"of 2\n\nrest", "a b.jpg"),
        piece(b"other\r9%\r", "c\nd.jpg"),
        piece(b"end"),
    )
    assert of.shown(View(names=True)) == (
        b"set up\na b.jpg: 1 of 2\na b.jpg: 2 of 2\na b.jpg: \na b.jpg: rest\n"
        b"c\\nd.jpg: other\r9%\r\nend"
    )
    assert of.shown(View(source="a b.jpg")) == b"1 of 2\n2 of 2\n\nrest"
    assert of.shown(View(source="")) == b"set up\nend"
    assert of.shown(View(source="c")) == b""
    assert log().shown(View(names=True)) == b""


@pytest.mark.parametrize("seed", range(40))
def test_pieces_that_are_read_one_after_the_other_are_the_whole(seed):
    dice = random.Random(seed)
    pieces, by_piece, read = [], b"", 0
    for _ in range(100):
        text = b"".join(
            dice.choice((b"a", b"b\n", b"\n", b"x: ")) for _ in range(dice.randrange(5))
        )
        name = dice.choice(("", "x", "y: "))
        pieces.append(piece(b"gap", name, kind=NOTE) if not text else piece(text, name))
        if dice.randrange(3) == 0:
            by_piece += log(*pieces).shown(View(after=read, names=True))
            read = log(*pieces).end
    whole = log(*pieces)
    assert whole.shown(View(names=True)) == by_piece + whole.shown(View(after=read, names=True))
    middle = whole.end // 2
    assert whole.shown(View()) == whole.shown(View())[: -len(whole.shown(View(after=middle)))] + (
        whole.shown(View(after=middle))
    )


def test_times_and_attempts():
    of = log(piece(b"a\nb", "k"), piece(b"c\n", "k"), piece(b"again\n", attempt=2))
    assert of.shown(View(times=True)) == (b"%b a\n%b bc\n%b again\n" % (EPOCH, EPOCH, EPOCH))
    assert of.shown(View(attempt=2, times=True, names=True)) == EPOCH + b" again\n"
    assert of.shown(View(attempt=1, times=True, names=True)) == (
        b"%b k: a\n%b k: bc\n" % (EPOCH, EPOCH)
    )


def test_what_was_cut_out_is_said_and_counts():
    of = log(piece(b"head\n"), piece(b"100", kind=CUT), piece(b"tail\n"))
    assert of.shown(View()) == b"head\n[... 100 bytes cut ...]\ntail\n"
    assert of.end == 110
    assert [of.begin(after) for after in (0, 5, 6, 104, 105, 200)] == [0, 5, 105, 105, 105, 110]
    assert of.shown(View(after=50)) == b"[... 100 bytes cut ...]\ntail\n"
    assert of.shown(View(after=105)) == b"tail\n"


# ---------------------------------------------------------------- what is missing


def filled(printed, gaps, output):
    """Return what a log of these pieces, with gaps after some of them, shows once the reply is there."""
    pieces = []
    for number, text in enumerate(printed):
        pieces.append(piece(text, "k", command=5))
        if number in gaps:
            pieces.append(piece(b"gap", "k", command=5, kind=NOTE))
    lacks = log(*pieces).missing(1, 5, output)
    if lacks is not None:
        pieces.append(piece(b"%d %d %d" % lacks.place, "k", command=5, kind=PLACE))
        pieces.append(piece(lacks.text, "k", command=5, kind=FILL))
    return log(*pieces).shown(View())


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=7), st.data())
def test_a_log_with_gaps_becomes_the_output_in_the_reply(parts, data):
    lost = data.draw(st.sets(st.integers(0, len(parts) - 1)))
    output = b"".join(parts)
    printed = [part for number, part in enumerate(parts) if number not in lost]
    before = [sum(1 for n in range(number) if n not in lost) - 1 for number in lost]
    assert filled(printed, [n for n in before if n >= 0], output) == output


def test_a_gap_in_which_nothing_was_printed_leaves_no_trace():
    assert filled([b"a\n", b"b\n"], {0}, b"a\nb\n") == b"a\nb\n"


def excerpt(output, limit):
    kept = Excerpt(limit)
    kept.add(output)
    return kept.bytes()


@pytest.mark.parametrize("limit", [100, 101, 5000])
def test_the_mark_of_a_worker_is_found(limit):
    output = b"".join(b"line %d\n" % number for number in range(300))
    told = read_excerpt(excerpt(output, limit))
    assert told.size == len(output)
    assert (told.head, told.tail or told.head) == (
        (output, output) if limit == 5000 else (output[: -(-limit // 2)], output[-(limit // 2) :])
    )


@pytest.mark.parametrize("odd", [b"", b"x"])
@pytest.mark.parametrize("cut", [7, 10**15 - 1])
def test_only_the_mark_in_the_middle_is_that_of_a_cut(cut, odd):
    other = b"\n[... 7 bytes cut ...]\n"
    head, tail = 20 * other + b"h" * 30 + odd, b"t" * 30 + 20 * other
    told = read_excerpt(b"%b\n[... %d bytes cut ...]\n%b" % (head, cut, tail))
    assert told == (head, cut, tail)
    assert read_excerpt(other + head).cut == 0


def test_of_a_long_output_what_the_reply_has_is_filled_in_and_the_rest_is_said_to_be_lost():
    lines = [b"line %03d\n" % number for number in range(300)]
    reply = excerpt(b"".join(lines), 900)  # lines 0 to 49 and 250 to 299
    for first, last in ((10, 30), (260, 290), (0, 20)):
        parts = [b"".join(lines[:first]), b"".join(lines[last:])]
        shown = filled(parts, {0}, reply)
        assert shown == b"".join(lines), (first, last)
    shown = filled([b"".join(lines[:100]), b"".join(lines[200:])], {0}, reply)
    mark = b"\n[... %d bytes lost ...]\n"
    assert shown == b"".join(lines[:100]) + mark % 900 + b"".join(lines[200:])
    shown = filled([b"".join(lines[:30]), b"".join(lines[270:])], {0}, reply)
    assert shown == b"".join(lines[:50]) + mark % 1800 + b"".join(lines[250:])


def test_parts_between_gaps_whose_places_are_unknown_stay_where_they_are():
    lines = [b"line %03d\n" % number for number in range(300)]
    reply = excerpt(b"".join(lines), 900)
    parts = [b"".join(lines[:60]), b"".join(lines[100:120]), b"".join(lines[200:])]
    shown = filled(parts, {0, 1}, reply)
    assert shown == b"[... gap ...]\n".join(parts)


def test_nothing_is_missing_in_a_log_that_is_complete():
    lines = b"".join(b"line %03d\n" % number for number in range(300))
    assert missing(lines, [], lines) is None
    assert missing(lines, [], excerpt(lines, 100)) is None


def test_who_has_read_to_the_end_sees_what_was_missing_last():
    pieces = [piece(b"1\n", command=5), piece(b"gap", command=5, kind=NOTE)]
    pieces.append(piece(b"3\n", command=5))
    read = log(*pieces).end
    lacks = log(*pieces).missing(1, 5, b"1\n2\n3\n")
    pieces.append(piece(b"%d %d %d" % lacks.place, command=5, kind=PLACE))
    pieces.append(piece(lacks.text, command=5, kind=FILL))
    whole = log(*pieces)
    assert whole.shown(View()) == b"1\n2\n3\n"
    assert whole.shown(View(after=read)) == b"[... this was missing above: ...]\n2\n"


# ---------------------------------------------------------------- of jobs


def pieces_of(job):
    assert isinstance(job.output, Printed)
    return job.output.pieces


class Both(OnePassState):
    expect = "OK:HELLO"

    def post_transition(self):
        self.enqueue("run:work a", source="a")
        self.enqueue("run:wc", quiet=True)
        self.enqueue("run:work b", source="b")
        return Waiting(self)


class Waiting(OnePassState):
    expect = "OK:R"


Waiting.nextState = Waiting


def test_output_belongs_to_its_commands_input_and_that_of_quiet_commands_is_not_kept():
    job = recorded_job(make_spec(Both))
    job.record(Planned([{}], [0], sizes=[2]))
    job.begin()
    line = Port(job).join(hello=hello())
    line.say(b"LOG:1:from a\n", b"LOG:2:17\n", b"LOG:3:from b\n", b"LOG:1:more\n")
    assert [(piece.source, piece.text) for piece in pieces_of(job)] == [
        ("a", b"from a\n"),
        ("b", b"from b\n"),
        ("a", b"more\n"),
    ]


def run_by(worker_hello, *said):
    """Return what is kept of what a worker says, with three runs under way: a, a quiet one, b."""
    job = recorded_job(make_spec(Both))
    job.record(Planned([{}], [0]))
    job.begin()
    port = Port(job)
    line = port.join(hello=worker_hello)
    for one in said:
        if one is None:
            line.hang_up()
            line = port.join(hello=Hello("aa", received=3, sent=0, crc=CRC))
        else:
            line.say(one)
    return [(one.kind, one.source, one.text) for one in pieces_of(job)]


CRC = zlib.crc32(frame(b"run:work a") + frame(b"run:wc") + frame(b"run:work b"))
RETVAL = b"OK:RETVAL(0):OUTPUT(%b):COMMAND(x)"


def test_output_that_came_before_the_reply_is_not_kept_twice():
    said = b"LOG:1:half ", b"LOG:1:line\n", b"RE:1:" + RETVAL % b"half line\n"
    assert run_by(hello("aa"), *said) == [("text", "a", b"half "), ("text", "a", b"line\n")]
    assert run_by(hello("aa"), b"RE:3:" + RETVAL % b"") == []


def test_output_that_a_reply_alone_has_is_kept():
    assert run_by(hello("aa"), b"RE:3:" + RETVAL % b"b\n") == [("whole", "b", b"b\n")]
    assert run_by(hello("aa"), b"RE:2:" + RETVAL % b"17\n") == []


def test_a_lost_connection_is_a_gap_in_the_output_of_what_runs():
    kept = run_by(hello("aa"), b"LOG:1:1\n", None, b"LOG:1:2\n", b"RE:1:" + RETVAL % b"1\n2\n")
    gap = b"output may be missing here: the connection to the worker was lost"
    assert kept == [
        ("text", "a", b"1\n"),
        ("note", "a", gap),
        ("note", "b", gap),
        ("text", "a", b"2\n"),
        ("whole", "a", b"1\n2\n"),
    ]


def test_an_original_workers_output_comes_with_its_replies():
    said = [RETVAL % text for text in (b"a\n", b"17\n", b"b\n")]
    assert run_by(Hello(), *said) == [("text", "a", b"a\n"), ("text", "b", b"b\n")]


def test_after_a_restart_an_original_workers_last_replies_are_kept_once_with_their_commands():
    job = recorded_job(make_spec(Both))
    ledger = job.ledger = HeldJournal()
    job.record(Planned([{}], [0]))
    job.begin()
    line = Port(job).join(hello=Hello())
    ledger.sync()
    for text in (b"a\n", b"17\n", b"b\n"):
        line.say(RETVAL % text)
    before = pieces_of(job)
    again = recorded_job(make_spec(Both), job.id)
    again.ledger = HeldJournal()
    recover(again, ledger.records, 0.0)
    assert [(one.command, one.kind, one.text) for one in pieces_of(again)] == [
        (one.command, "once", one.text) for one in before
    ]
    assert [one.command for one in before] == [1, 3]


@pytest.mark.parametrize("ahead_mb", [0, 1])
def test_map_says_which_key_each_command_is_of(ahead_mb):
    driven = machine(
        map_pipeline.begin,
        {"bucket": "b", "command": "cat {in} > {out}", "prefix": "", "suffix": ""}
        | {"out_prefix": "o/", "on_error": "keep", "ahead_mb": ahead_mb},
        given={"keys": ["a", "b"]},
    )
    counted = FakeWorker({"run:rm -f": "OK:RETVAL(0):OUTPUT(3):COMMAND()"})
    played = play(driven, counted)
    runs = [
        (command.rpartition("\n")[2], driven.worker.source_of(number))
        for number, command in enumerate(played.commands, 1)
        if command.startswith("run:")
    ]
    places = [f"##TMPDIR##/{number}" for number in range(2)]
    assert sorted(runs) == [
        *((f"cat {place}/in > {place}/out", key) for place, key in zip(places, "ab", strict=True)),
        *((f"run:rm -f {place}/in; wc -c < {place}/out", None) for place in places),
    ]


def test_an_actor_is_found_by_its_input():
    named = OneState(Both)
    named.inputs = lambda given: given["keys"]
    job = recorded_job(make_spec(Both, pipeline=named))
    keys = [["a", "b"], ["c"], ["b"]]
    job.record(Planned([{"keys": some} for some in keys], [0, 1, 2], sizes=[2, 1, 1]))
    assert {
        name: [actor.number for actor in having] for name, having in job.having("b").items()
    } == {"b": [0, 2]}
    assert job.having("d") == {}
