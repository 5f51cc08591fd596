"""What the daemon remembers of functions that have reached it."""

from twisted.logger import capturedLogs

from mu.jobs.reached import KEPT, Reached, Way

WAY = Way("lambda", "film", "us-east-1", "203.0.113.5")


def test_a_way_is_known_across_restarts_until_the_next_deployment(tmp_path):
    path = tmp_path / "reached.json"
    Reached(path).note(WAY, "monday")
    again = Reached(path)
    assert again.knows(WAY, "monday")
    assert not again.knows(WAY, "tuesday")
    assert not again.knows(Way("lambda", "film", "us-east-1", "203.0.113.6"), "monday")
    again.note(WAY, "tuesday")
    assert Reached(path).knows(WAY, "tuesday")
    assert path.stat().st_mode & 0o077 == 0


def test_a_damaged_file_is_as_good_as_none_and_the_log_says_so(tmp_path):
    path = tmp_path / "reached.json"
    for damage in ("[]", "{", "\udcff"):
        path.write_text(damage, errors="surrogateescape")
        with capturedLogs() as logs:
            reached = Reached(path)
        assert "cannot be read" in logs[0]["log_format"]
        assert not reached.knows(WAY, "monday")
    reached.note(WAY, "monday")
    assert Reached(path).knows(WAY, "monday")


def test_without_a_file_it_remembers_while_it_lives_and_a_full_disk_is_only_logged(tmp_path):
    reached = Reached()
    reached.note(WAY, "monday")
    assert reached.knows(WAY, "monday")
    nowhere = Reached(tmp_path / "gone" / "reached.json")
    with capturedLogs() as logs:
        nowhere.note(WAY, "monday")
    assert "cannot write" in logs[0]["log_format"]
    assert nowhere.knows(WAY, "monday")


def test_only_the_latest_are_remembered():
    reached = Reached()
    for number in range(KEPT + 1):
        reached.note(Way("lambda", f"f{number}", "us-east-1", "h"), "v")
    assert not reached.knows(Way("lambda", "f0", "us-east-1", "h"), "v")
    assert reached.knows(Way("lambda", "f1", "us-east-1", "h"), "v")
