"""The worker's pure parts: event, variables, template, excerpt, live log, PEM."""

import io
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from kit.workers import bare, make_papers
from mu_worker.event import WorkerEvent, read_event
from mu_worker.excerpt import Excerpt
from mu_worker.init import process_age_s
from mu_worker.livelog import INTERVAL_S, PIECE_BYTES, LiveLog
from mu_worker.programs import run_once
from mu_worker.template import command_string, fill_tmpdir, names_shared_tmp
from mu_worker.tls import client_context
from mu_worker.variables import Variables

# ---------------------------------------------------------------- the event


def test_an_empty_event_means_the_defaults():
    assert read_event({}) == WorkerEvent()


def test_null_counts_as_absent():
    assert read_event({"bucket": None, "port": None}) == WorkerEvent()


def test_strings_of_digits_are_numbers_where_numbers_are_expected():
    event = read_event({"mode": "1", "port": "80", "nonblock": True, "reconnect_s": "2.5"})
    assert (event.mode, event.port, event.nonblock, event.reconnect_s) == (1, 80, 1, 2.5)


def test_numbers_are_texts_where_texts_are_expected():
    event = read_event({"quality": 30, "launch": 7, "args": ["-n", 4], "vars": "A=1"})
    assert (event.quality, event.launch, event.args, event.vars) == ("30", "7", "-n 4", "A=1")


def test_keys_of_others_are_no_error():
    assert read_event({"lambda_function": "mine"}) == WorkerEvent()


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"port": 70000}, "event key port must be an integer from 1 to 65535, got 70000"),
        ({"port": "http"}, "event key port must be .*, got 'http'"),
        ({"mode": 4}, "event key mode must be an integer from 0 to 3, got 4"),
        ({"mode": 3, "probe": ["a"]}, r"event key probe must be an object of \[HOST, PORT\]"),
        ({"mode": 3, "probe": {"relay": ["a", 0]}}, "event key probe must be an integer from 1"),
        ({"nonblock": "yes"}, "event key nonblock must be an integer, got 'yes'"),
        ({"nonblock": 1.5}, "event key nonblock must be an integer, got 1.5"),
        ({"bucket": ["a"]}, "event key bucket must be a string, got "),
        ({"args": [["a"]]}, "event key args must be a string, got "),
        ({"bucket": True}, "event key bucket must be a string, got True"),
        ({"bucket": "a\0"}, r"event key bucket must be a string without a NUL, got 'a\\x00'"),
        ({"args": ["ok", "\ud800"]}, r"event key args must be valid Unicode, got '\\ud800'"),
        ({"infile": "x" * 2**17}, "event key infile must have less than 131072 bytes"),
        ({"vars": {"A": "1"}}, "event key vars must be a string, got {'A': '1'}"),
        ({"addr": ""}, "event key addr must be a host name or an IP address, got ''"),
        ({"addr": "a.b\n"}, "event key addr must be a host name"),
        ({"addr": "https://a.b"}, "event key addr must be a host name"),
        ({"addr": "a.b:13579"}, "event key addr must be a host name"),
        ({"addr": "[::1]"}, "event key addr must be a host name"),
        ({"server_name": "a b"}, "event key server_name must be a host name"),
        ({"launch": "x" * 65}, "event key launch must be at most 64 characters"),
        ({"port": "1_3579"}, "event key port must be an integer from 1 to 65535, got '1_3579'"),
        ({"port": "٨٠"}, "event key port must be an integer"),
        ({"port": 80.0}, "event key port must be an integer"),
        ({"port": "9" * 5000}, "event key port must be an integer"),
        ({"nonblock": []}, "event key nonblock must be an integer"),
        ({"reconnect_s": True}, "event key reconnect_s must be at least 0 seconds, got True"),
        ({"reconnect_s": [1]}, "event key reconnect_s must be at least 0 seconds"),
        ({"reconnect_s": -1}, "event key reconnect_s must be at least 0 seconds, got -1"),
        ({"reconnect_s": "nan"}, "event key reconnect_s must be at least 0 seconds, got 'nan'"),
        ({"env": "A=1"}, "event key env must be an object of strings"),
        ({"env": {"A": None}}, "event key env.A must be a string, got None"),
        ({"env": {"A": True}}, "event key env.A must be a string, got True"),
        ({"env": {"A": "a\0"}}, "event key env.A must not contain a NUL"),
        ({"env": {"A": "\ud800"}}, "event key env.A must be valid Unicode"),
        ({"env": {"A": "b" * 2**17}}, "event key env.A must have less than 131072 bytes"),
        ({"reconnect_s": 10**400}, "event key reconnect_s must be at least 0 seconds, got 1000"),
        ({"env": {"A=B": "c"}}, "event key env: 'A=B' is not a valid variable name"),
        ({"launch": "a,b"}, "event key launch must not contain , .*, got 'a,b'"),
        ({"cacert": "c", "srvcrt": "s"}, "event key srvkey is missing"),
        (
            {"output_limit": 2**30},
            "event key output_limit must be an integer from 0 to 8388608, got ",
        ),
    ],
)
def test_a_bad_event_is_refused_by_naming_the_key(keys, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_event(keys)


@pytest.mark.parametrize(
    "addr", ["10.0.0.1", "::1", "fe80::1%eth0", "a-b.example.com", "bücher.de"]
)
def test_hosts_are_names_or_addresses(addr):
    assert read_event({"addr": addr}).addr == addr


def test_numbers_may_have_spaces_around_them():
    assert read_event({"port": " 80\r\n", "send_statefile": "-1"}).port == 80


def test_a_bad_key_is_not_shown():
    with pytest.raises(ValueError, match="event key srvkey must be a string, got a secret"):
        read_event({"srvkey": ["hush"]})


def test_an_event_must_be_an_object():
    with pytest.raises(ValueError, match="the event must be a JSON object"):
        read_event(["a"])


# ---------------------------------------------------------------- variables


def test_the_events_switches_are_the_first_variables():
    variables = Variables(read_event({"bucket": "b", "nonblock": 1}), "/tmp/own")
    assert json.loads(variables.dump()) == {
        "_tmpdir": "/tmp/own",
        "bucket": "b",
        "nonblock": 1,
        "bg_silent": 0,
        "expect_statefile": 0,
        "send_statefile": 0,
        "minimal_recode": 0,
        "hash_s3keys": 0,
        "rm_tmpdir": 1,
        "run_iter": 0,
    }


def test_a_switch_set_as_text_counts_as_its_number():
    variables = Variables(WorkerEvent(), "/tmp/own")
    for text, number in [("0", 0), ("1", 1), ("", 0), ("yes", 0)]:
        variables.set("nonblock", text)
        assert variables.number("nonblock") == number


# ---------------------------------------------------------------- the command string


def built(base: str, event: dict[str, object] | None = None, **variables: str | int) -> str:
    read = read_event(event or {})
    values = Variables(read, "/tmp/own")
    for name, value in variables.items():
        values.set(name, value)
    return fill_tmpdir(command_string(base, values, read), values)


def test_vars_come_in_front_and_args_behind():
    assert built("cmd", {"vars": ["A=1", "B=2"], "args": ["-x", "-y"]}) == "A=1 B=2 cmd -x -y"


def test_a_variable_wins_over_the_event():
    event = {"vars": "A=1", "quality": 1, "infile": "in", "outfile": "out"}
    command = built("cmd ##QUALITY## ##INFILE## ##OUTFILE##", event, cmdquality=9, cmdvars="B=2")
    assert command == "B=2 cmd 9 in out"


def test_an_empty_variable_wins_over_the_event_too():
    assert built("cmd ##QUALITY##.", {"quality": "q"}, cmdquality="") == "cmd ."


def test_what_is_put_in_may_name_the_tmpdir():
    assert built("c ##INFILE##", cmdinfile="##TMPDIR##/in") == "c /tmp/own/in"


def test_placeholders_without_a_value_stay():
    assert built("c ##INFILE##") == "c ##INFILE##"


def test_args_may_hold_placeholders():
    assert built("c", {"args": "##INFILE##", "infile": "in"}) == "c in"


STATES = "[##INSTATEWAIT##][##INSTATESWITCH##]"


@pytest.mark.parametrize("values", [{}, {"run_iter": 1}, {"expect_statefile": 1}])
def test_without_state_passing_its_placeholders_are_empty(values):
    assert built(STATES, **values) == "[][]"


def test_the_first_iteration_waits_for_state_zero():
    wait, switch = built(STATES, {"expect_statefile": 1}, run_iter=1)[1:-1].split("][")
    assert '"/tmp/own/0.state"' in wait
    assert wait.endswith("| ")
    assert switch == '-r -I "/tmp/own/0.state" -p "/tmp/own/prev.ivf"'


def test_later_iterations_name_the_state_before_it_too():
    switch = built("##INSTATESWITCH##", {"expect_statefile": 1}, run_iter=4)
    assert switch == ('-r -I "/tmp/own/3.state" -p "/tmp/own/prev.ivf" -S "/tmp/own/2.state"')


def test_with_minimal_recode_the_state_before_it_is_always_the_first():
    switch = built("##INSTATESWITCH##", {"expect_statefile": 1, "minimal_recode": 1}, run_iter=4)
    assert switch.endswith(' -S "/tmp/own/0.state"')


@pytest.mark.parametrize(
    "command",
    [
        *("ls /tmp", "/tmp/x", "rm -rf /tmp/*", 'cat "/tmp/x"', "dd if=/tmp/x", "a >/tmp/x"),
        *("x -o/tmp/y", "ls //tmp", "curl file:///tmp/x", "(cd /tmp; ls)", "ls /tmp*", "a&&/tmp/b"),
    ],
)
def test_a_command_that_names_tmp_is_recognised(command):
    assert names_shared_tmp(command)


@pytest.mark.parametrize(
    "command",
    [
        *("ls /tmpfoo", "./tmp/x", "ls tmp/x", "a/tmp/x", "##TMPDIR##/tmp/x", "$X/tmp", "${X}/tmp"),
        *("ls /tmp.old", "ls /tmp-2", "a//tmp/x", "~/tmp", "ls /var/tmp", "echo ##TMPDIR##"),
    ],
)
def test_a_command_that_does_not_name_tmp_is_let_through(command):
    assert not names_shared_tmp(command)


# ---------------------------------------------------------------- output


def test_an_output_within_the_limit_is_whole():
    excerpt = Excerpt(10)
    excerpt.add(b"01234")
    excerpt.add(b"56789")
    assert excerpt.bytes() == b"0123456789"


def test_a_longer_output_keeps_head_and_tail():
    excerpt = Excerpt(10)
    for at in range(0, 10_000_000, 50_000):
        excerpt.add(b"%050000d" % at)
    excerpt.add(b"the end")
    assert excerpt.bytes() == b"00000\n[... 9999997 bytes cut ...]\ne end"


def test_a_limit_of_zero_keeps_only_the_mark():
    excerpt = Excerpt(0)
    excerpt.add(b"abc")
    assert excerpt.bytes() == b"\n[... 3 bytes cut ...]\n"


def test_a_collected_output_of_100_mb_takes_little_memory():
    import tracemalloc

    chunk = b"x" * 65536
    tracemalloc.start()
    excerpt = Excerpt(65536)
    for _ in range(1600):
        excerpt.add(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_live_output_is_due_an_interval_after_its_first_byte():
    live = LiveLog()
    assert live.due is None
    live.add(1, b"a", now=10)
    live.add(1, b"b", now=10.1)
    live.add(2, b"c", now=10.1)
    assert live.due == 10 + INTERVAL_S
    assert live.take_all() == [(1, b"ab"), (2, b"c")]
    assert live.due is None


def test_a_large_piece_of_live_output_is_due_at_once():
    live = LiveLog()
    live.add(1, b"x" * PIECE_BYTES, now=10)
    assert live.due == 10


def test_skipped_live_output_leaves_a_note():
    live = LiveLog()
    live.add(1, b"a", now=0)
    live.skip(1, b"bcd", now=0)
    assert live.take(1) == b"a\n[... 3 bytes not shown live ...]\n"
    assert live.due is None


# ---------------------------------------------------------------- programs


def no_pidfd(pid: int) -> int:
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize("pidfd_open", [os.pidfd_open, no_pidfd])
def test_an_exit_is_noticed_with_pidfds_and_without(tmp_path, monkeypatch, pidfd_open):
    monkeypatch.setattr(os, "pidfd_open", pidfd_open)
    status, output = run_once("echo $PWD; sleep 1000 & exit 3", str(tmp_path), 1000)
    assert (status, output) == (3, f"{tmp_path}\n".encode())


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def rsa():
    return make_papers("rsa")


def test_without_a_ca_there_is_no_tls(tmp_path):
    assert client_context(WorkerEvent(), str(tmp_path)) is None


def test_the_key_does_not_stay_on_disk(tmp_path, rsa):
    assert client_context(read_event(rsa.event()), str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_bare_base64_is_taken_as_the_original_sent_it(tmp_path, rsa):
    event = read_event(
        {
            "cacert": bare(rsa.ca),
            "srvcrt": bare(rsa.worker + rsa.ca),
            "srvkey": bare(rsa.worker_key),
        }
    )
    assert " " in bare(rsa.worker + rsa.ca)
    assert client_context(event, str(tmp_path))


def test_pem_may_have_other_line_ends_a_byte_order_mark_and_comments(tmp_path, rsa):
    given = rsa.event()
    for key in ("cacert", "srvcrt", "srvkey"):
        given[key] = "\ufeff" + given[key].replace("\n", "\r\n")
    assert client_context(read_event(given), str(tmp_path))
    given["cacert"] = "friendlyName: Bücher\n" + rsa.event()["cacert"]
    assert client_context(read_event(given), str(tmp_path))


def test_the_least_is_tls_1_2_and_the_name_is_checked_only_when_told(tmp_path, rsa):
    context = client_context(read_event(rsa.event()), str(tmp_path))
    named = client_context(read_event(rsa.event() | {"server_name": "a"}), str(tmp_path))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert (context.check_hostname, named.check_hostname) == (False, True)
    assert context.verify_mode == ssl.CERT_REQUIRED


@pytest.mark.parametrize("key", ["cacert", "srvcrt", "srvkey"])
def test_what_is_no_pem_is_refused_by_naming_the_key(tmp_path, rsa, key):
    event = read_event(rsa.event() | {key: "bm9uc2Vuc2U="})
    with pytest.raises(ValueError, match=key):
        client_context(event, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- INIT


def test_init_is_told_for_the_first_event_of_a_sandbox_only():
    program = (
        "import time; begun = time.monotonic(); from mu_worker.init import Init; time.sleep(0.05);"
        " init = Init(); print(init.take(), init.take(), time.monotonic() - begun)"
    )
    path = {"PYTHONPATH": str(Path(__file__).parents[2] / "lambda")}
    done = subprocess.run([sys.executable, "-c", program], env=path, capture_output=True, text=True)
    first, second, least = done.stdout.split()
    assert second == "None"
    assert float(least) - 0.02 <= float(first) < 60  # the kernel counts in 1/100 s


def test_a_system_that_does_not_tell_a_processs_age_is_no_error(monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *_: io.BytesIO(b"nonsense"))
    assert process_age_s() is None
