"""The output of commands: what is kept, which input it is of, and how it is asked for."""

import random

import pytest
from kit.parts import OneState, Port, make_spec, recorded_job
from kit.states import hello

from mu.jobs.output import Tail
from mu.journal.records import Planned
from mu.pipelines.map import map_pipeline
from mu.states import OnePassState
from mu.testing import FakeWorker, machine, play


@pytest.mark.parametrize("pieces", [[b"abcdefgh"], [b"abcd", b"efgh"], [b"a"] * 3 + [b"defgh"]])
def test_a_tail_keeps_the_end_and_counts_the_rest(pieces):
    tail = Tail(4)
    for piece in pieces:
        tail.write(piece)
    assert bytes(tail) == b"efgh"
    assert tail.end == 8
    assert [tail.since(start) for start in (0, 4, 6, 8, 99)] == [b"efgh", b"efgh", b"gh", b"", b""]


def test_each_line_begins_with_its_input():
    tail = Tail(1000)
    tail.write(b"set up\n")
    tail.write(b"1 of 2\n2 ", "a b.jpg")
    tail.write(b"of 2\n\nrest", "a b.jpg")
    tail.write(b"other\r9%\r", "c\nd.jpg")
    tail.write(b"end", "")
    assert tail.labelled(0) == (
        b"set up\na b.jpg: 1 of 2\na b.jpg: 2 of 2\na b.jpg: \na b.jpg: rest\n"
        b"c\\nd.jpg: other\r9%\r\nend"
    )
    assert tail.of("a b.jpg", 0) == b"1 of 2\n2 of 2\n\nrest"
    assert tail.of("", 0) == b"set up\nend"
    assert tail.of("c", 0) == b""
    empty = Tail(10)
    assert empty.labelled(0) == empty.of("", 0) == b""


@pytest.mark.parametrize("seed", range(40))
def test_pieces_that_are_read_one_after_the_other_are_the_whole(seed):
    dice = random.Random(seed)
    tail, parts, by_piece, read = Tail(dice.choice((20, 10_000))), [], b"", 0
    one = dict.fromkeys(("", "x", "y: "), b"")
    for _ in range(200):
        name = dice.choice(list(one))
        piece = b"".join(
            dice.choice((b"a", b"b\n", b"\n", b"x: ")) for _ in range(dice.randrange(5))
        )
        tail.write(piece, name)
        parts.append((name, piece))
        if dice.randrange(3) == 0 or tail.end - read > 10:
            for of in one:
                one[of] += tail.of(of, read)
            by_piece += tail.labelled(read)
            read = tail.end
    if tail.begin == 0:
        by_piece += tail.labelled(read)
        assert tail.labelled(0) == by_piece
    for of, seen in one.items():
        said = b"".join(piece for name, piece in parts if name == of)
        assert said == seen + tail.of(of, read)


def test_what_a_small_tail_keeps_has_its_inputs():
    tail = Tail(6)
    for number in range(1000):
        tail.write(b"%d\n" % (number % 10), f"k{number}")
    assert tail.labelled(0) == b"k997: 7\nk998: 8\nk999: 9\n"
    assert tail.of("k998", 0) == b"8\n"
    assert len(tail._sources) == 3


class Both(OnePassState):
    expect = "OK:HELLO"

    def post_transition(self):
        self.enqueue("run:work a", source="a")
        self.enqueue("run:wc", quiet=True)
        self.enqueue("run:work b", source="b")
        return Waiting(self)


class Waiting(OnePassState):
    expect = "OK:DONE"


def test_output_belongs_to_its_commands_input_and_that_of_quiet_commands_is_not_kept():
    job = recorded_job(make_spec(Both))
    job.record(Planned([{}], [0], sizes=[2]))
    job.begin()
    line = Port(job).join(hello=hello())
    line.say(b"LOG:1:from a\n", b"LOG:2:17\n", b"LOG:3:from b\n", b"LOG:1:more\n")
    output = job.actors[0].output
    assert output.labelled(0) == b"a: from a\nb: from b\na: more\n"
    assert output.of("a", 0) == b"from a\nmore\n"


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
