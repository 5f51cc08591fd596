"""The relay's rules, one by one: these events in, those effects out."""

import math

import pytest
from kit.relay import Jobs

from mu.relay.effects import (
    Close,
    Deliver,
    Drop,
    Forget,
    Give,
    Link,
    ReportLoss,
    Resume,
    Store,
    Tell,
    Unlink,
)
from mu.relay.limits import MIB, OVERHEAD, FrameTooLarge, RelayLimits
from mu.relay.mailboxes import FORGET_S
from mu.relay.parties import Name
from mu.relay.switchboard import Switchboard

ONE, TWO = Name("j", "u", "1"), Name("j", "u", "2")


class Board(Switchboard):
    """A switchboard to which whole frames are sent in one call."""

    def __init__(self, **limits):
        self.jobs = Jobs()
        super().__init__(RelayLimits(**limits), self.jobs)

    def join(self, peer, name=ONE, partner="2", at=None):
        """Say hello, then AT or nothing; return the effects of the latter."""
        self.hello(peer, name, partner)
        return self.plain(peer) if at is None else self.extended(peer, *at)

    def send(self, peer, size=10, now=0.0):
        frame = self.announce(peer, size, now)
        return frame, self.arrived(peer, frame)

    def send_stored(self, peer, size=10, now=0.0):
        frame, _ = self.send(peer, size, now)
        return frame, self.stored([frame])


@pytest.fixture
def board():
    return Board()


REPLACED = "a newer connection took over its name"
FULL, HALF, QUARTER = MIB - OVERHEAD, MIB // 2 - OVERHEAD, MIB // 4 - OVERHEAD
"""Frames that take a mailbox of 1 MiB, or that part of it."""
FIRST = (1, 0, 0)
"""AT of a first attempt that sent and received nothing."""


# ---------------------------------------------------------------- one name, several connections


def test_a_third_connection_closes_the_one_that_waits_to_take_over(board):
    board.join("old")
    (closed,) = board.join("new")
    assert (closed.peer, closed.reason) == ("old", REPLACED)
    assert board.join("newest") == [Close("new", REPLACED)]
    assert board.gone("new") == []
    board.gone("old")
    board.send("newest")
    assert board.mailboxes.party(ONE).current.id == "newest"


def test_one_that_waits_to_take_over_and_goes_leaves_the_name_to_nobody(board):
    board.join("old")
    board.join("new")
    board.gone("new")
    board.gone("old")
    assert board.mailboxes.parties == {}


def test_a_linked_peer_that_says_at_after_all_is_unlinked(board):
    board.join("b", TWO, "1")
    assert Link("a", "b") in board.join("a")
    assert board.extended("a", 1, 0, 0) == [Unlink("b"), Unlink("a"), Tell("a", 0)]


def test_links_to_a_peer_that_says_at_after_all_are_undone(board):
    board.join("a")
    assert Link("a", "b") in board.join("b", TWO, "1")
    assert board.extended("b", 1, 0, 0)[:2] == [Unlink("a"), Unlink("b")]


def test_a_successor_sends_nothing_while_a_frame_of_its_name_is_on_a_link(board):
    board.join("b", TWO, "1")
    board.join("a")
    frame = board.announce("a", 10, 0.0)
    board.linked("a", frame)
    board.hello("b again", TWO, "1")  # so that nobody is linked until it is known what that is
    board.gone("a")
    board.join("a again")
    assert board.announce("a again", 10, 0.0) is None
    assert board.plain("b again") == [Close("b", REPLACED)]
    effects = board.gone("b", [frame])
    assert effects[:2] == [Resume("a again"), Deliver("b again", frame, False)]
    assert board.announce("a again", 10, 0.0) is not None


def test_a_sender_whose_link_was_undone_is_resumed_when_its_last_frame_has_passed(board):
    board.join("b", TWO, "1")
    board.join("a")
    frames = []
    for _ in range(2):
        frames.append(board.announce("a", 10, 0.0))
        board.linked("a", frames[-1])
    assert Resume("a") not in board.passed(frames[0])
    assert Unlink("a") in board.extended("b", *FIRST)
    assert Resume("a") in board.passed(frames[1])


def test_a_sender_that_has_gone_is_not_told_what_is_on_disk(board):
    board.join("a", at=FIRST)
    frame, _ = board.send("a")
    board.gone("a")
    assert not [effect for effect in board.stored([frame]) if isinstance(effect, Tell)]


# ---------------------------------------------------------------- what is dropped


def test_an_attempt_that_needs_what_an_earlier_one_confirmed_is_refused(board):
    board.join("a", at=FIRST)
    board.send_stored("a")
    board.join("b", TWO, "1", at=(1, 0, 1))
    (closed,) = board.join("b again", TWO, "1", at=(2, 0, 0))
    assert closed.reason.startswith("it needs frame 1 for u_2 of job j, but the relay no longer")


def test_a_lower_attempt_is_refused(board):
    board.join("b", TWO, "1", at=(2, 0, 0))
    (closed,) = board.join("late", TWO, "1", at=FIRST)
    assert closed == Close("late", "its attempt 1 was replaced by attempt 2")


def test_what_is_confirmed_is_kept_if_the_job_keeps_its_frames(board):
    board.jobs.kept["j"] = math.inf
    board.join("a", at=FIRST)
    frame, _ = board.send_stored("a")
    board.join("b", TWO, "1", at=(1, 0, 1))
    assert board.join("b again", TWO, "1", at=(2, 0, 0)) == [Close("b", REPLACED)]
    assert Deliver("b again", frame, True) in board.gone("b")


def test_an_extended_receiver_is_closed_when_a_frame_that_it_needs_was_dropped(board):
    board.join("a", at=FIRST)
    board.join("b", TWO, "1", at=FIRST)
    board.send("a")
    board.jobs.over.add("j")
    board.tick(1.0)
    _, effects = board.send("a")
    assert effects[-1] == Close("b", "the relay dropped frame 1, which it needs")


def test_a_plain_receiver_skips_frames_that_were_dropped(board):
    board.join("a", at=FIRST)
    board.join("b", TWO, "1")
    lost, _ = board.send("a")
    board.jobs.over.add("j")
    assert Drop(lost) in board.tick(1.0)
    frame, effects = board.send("a")
    assert effects == [Store(frame), Give(TWO, 2)]
    board.gave(TWO)
    board.gave(TWO)
    assert board.stored([frame])[-2:-1] == [Deliver("b", frame, False)]


def test_old_frames_are_kept_while_their_receiver_is_connected(board):
    board.join("a", at=FIRST)
    board.join("b", TWO, "1", at=FIRST)
    frame, _ = board.send("a")
    assert board.tick(1e6) == []
    assert board.stored([frame])[-1:] != []
    assert board.mailboxes.total == 10 + OVERHEAD


def test_old_frames_that_nobody_fetched_are_dropped_and_reported(board):
    board.join("a", at=FIRST)
    frames = [board.send_stored("a")[0] for _ in range(2)]
    assert board.tick(600.0) == [
        *map(Drop, frames),
        ReportLoss(TWO, 2, 20, "no worker fetched them within 600 s"),
    ]
    assert board.mailboxes.counts["lost"] == 2


def test_the_counts_of_an_unused_name_are_forgotten_after_a_day(board):
    board.join("a", at=FIRST)
    board.send_stored("a")
    board.gone("a")
    board.tick(600.0)
    assert set(board.mailboxes.parties) == {ONE, TWO}
    assert board.tick(600.0 + FORGET_S) == [Forget(ONE), Forget(TWO)]
    assert board.mailboxes.parties == {}


def test_a_name_of_which_nothing_is_on_disk_is_forgotten_without_the_disk(board):
    board.join("a", at=FIRST)
    board.gone("a")
    assert set(board.mailboxes.parties) == {ONE}, "its attempt counts"
    board.tick(0.0)
    assert board.tick(FORGET_S) == []
    assert board.mailboxes.parties == {}


# ---------------------------------------------------------------- space


def test_a_frame_over_the_limit_of_a_mailbox_is_refused():
    board = Board(mailbox=MIB)
    board.join("a")
    with pytest.raises(FrameTooLarge, match="1044481 bytes exceeds what the relay may hold"):
        board.announce("a", FULL + 1, 0.0)


def test_frames_without_any_bytes_fill_a_mailbox_too():
    board = Board(mailbox=MIB)
    board.join("a")
    for _ in range(MIB // OVERHEAD):
        board.send("a", 0)
    assert board.announce("a", 0, 0.0) is None


def test_frames_without_any_bytes_go_to_disk_when_the_memory_is_full_each_once():
    board = Board(memory=MIB)
    board.join("a")
    effects = [effect for _ in range(256) for effect in board.send("a", 0)[1]]
    assert board.announce("a", 0, 0.0) is None, "the disk is slower"
    stored = [effect.frame for effect in effects if isinstance(effect, Store)]
    assert [frame.number for frame in stored] == list(range(1, 257))
    assert Resume("a") in board.stored(stored)
    assert board.mailboxes.memory == 0


def test_a_sender_without_space_is_resumed_as_soon_as_there_is_some():
    board = Board(mailbox=MIB)
    board.join("a", at=FIRST)
    first, _ = board.send_stored("a", FULL)
    assert board.announce("a", FULL, 0.0) is None
    board.join("b", TWO, "1", at=FIRST)
    assert board.delivered("b", first) == [Drop(first), Resume("a")]
    assert board.announce("a", FULL, 0.0) is not None


def test_a_sender_that_waited_too_long_is_closed_once():
    board = Board(mailbox=MIB)
    board.join("a")
    board.send("a", FULL)
    assert board.announce("a", 1, 0.0) is None
    board.mailboxes.party(TWO).frames[1].at = 601.0
    (closed,) = board.tick(601.0)
    assert closed.reason.startswith("for 601 s there was no space for its frame of 1 bytes for u_2")
    assert board.tick(602.0) == []


def test_a_sender_that_waited_long_is_resumed_if_old_frames_make_space():
    board = Board(mailbox=MIB)
    board.join("a")
    board.send("a", FULL)
    assert board.announce("a", 1, 0.0) is None
    assert board.tick(601.0)[-1] == Resume("a")


def test_dropping_all_delivered_frames_may_not_make_enough_space():
    board = Board(mailbox=MIB, total=MIB)
    board.join("a", at=FIRST)
    board.join("b", TWO, "1", at=FIRST)
    frame, _ = board.send_stored("a", FULL // 2)
    board.delivered("b", frame)
    board.join("c", Name("k", "u", "1"), "2")
    board.send("c", HALF)
    board.join("d", Name("k", "u", "3"), "4")
    assert board.announce("d", FULL, 0.0) is None
    assert frame.dropped, "it made some space"


def test_old_delivered_frames_are_dropped_without_a_report(board):
    board.join("a", at=FIRST)
    board.join("b", TWO, "1", at=FIRST)
    frame, _ = board.send_stored("a")
    board.delivered("b", frame)
    assert board.tick(600.0) == [Drop(frame)]
    assert board.mailboxes.counts["lost"] == 0


def test_only_as_many_delivered_frames_are_dropped_as_are_in_the_way():
    board = Board(mailbox=MIB, total=MIB)
    board.jobs.kept["kept"] = math.inf
    frames = []
    for at, job in enumerate(("kept", "j", "k")):
        board.join(f"a{job}", Name(job, "u", "1"), "2", at=FIRST)
        board.join(f"b{job}", Name(job, "u", "2"), "1", at=FIRST)
        frames.append(board.send_stored(f"a{job}", QUARTER, float(at))[0])
        board.delivered(f"b{job}", frames[-1])
    board.join("c", Name("l", "u", "1"), "2")
    assert board.announce("c", HALF, 9.0) is not None
    assert [frame.dropped for frame in frames] == [False, True, False]
