"""What workers print cannot command the terminal that shows it."""

import os
import pty
import select
import subprocess
import sys

import pytest

from mu.cli.terminal import TerminalText, visible


def shown(*pieces):
    text = TerminalText()
    return "".join(text.feed(piece) for piece in pieces) + text.end()


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (b"plain \xc3\xbc\ttab\n", "plain ü\ttab\n"),
        (b"\x1b[31mred\x1b[0m", "red"),
        (b"\x1b]0;title\x07a\x1b]52;c;cm0=\x1b\\b", "ab"),
        (b"\x1b[2J\x1b[Hgone", "gone"),
        (b"\x1bcreset", "\ufffdcreset"),
        (b"a\0b\x08\x7f", "a\ufffdb\ufffd\ufffd"),
        ("\u202eright\u2066to left\u200f".encode(), "\ufffdright\ufffdto left\ufffd"),
        ("\x9b31m".encode(), "\ufffd31m"),
        (b"10%\r20%\r\n30%\r", "10%\n20%\n30%\n"),
        (b"caf\xe9", "caf\ufffd"),
        (
            "no\u00a0break \U0001f468\u200d\U0001f469".encode(),
            "no\u00a0break \U0001f468\u200d\U0001f469",
        ),
        (b"\x1b[" + b"1" * 2000, "\ufffd[" + "1" * 2000),
    ],
)
def test_only_text_is_shown_however_it_is_cut(printed, expected):
    assert shown(printed) == expected
    if len(printed) < 100:
        for at in range(len(printed) + 1):
            assert shown(printed[:at], printed[at:]) == expected
        assert shown(*(printed[at : at + 1] for at in range(len(printed)))) == expected


def test_an_unfinished_sequence_holds_back_no_more_than_itself():
    text = TerminalText()
    assert text.feed(b"line\n\x1b[3") == "line\n"
    assert text.feed(b"1mred") == "red"
    assert text.end() == ""


def test_every_character_is_shown_or_replaced_by_one():
    everything = "".join(map(chr, range(0x3000)))
    assert len(visible(everything)) == len(everything)
    assert "\x1b" not in visible(everything)


def test_an_error_is_filtered_on_a_terminal_and_unaltered_in_a_pipe():
    program = "from mu.cli.options import CliError; CliError('a\\x08b').show()"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, stderr=subprocess.PIPE).stderr == b"mu: a\x08b\n"
    ours, theirs = pty.openpty()
    subprocess.run(command, stderr=theirs)
    os.close(theirs)
    assert select.select([ours], [], [], 10)[0]
    assert os.read(ours, 1000).decode() == "mu: a\ufffdb\r\n"
    os.close(ours)
