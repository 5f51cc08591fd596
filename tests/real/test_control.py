"""The control port: request bodies, Idempotency-Keys, pages, logs."""

import http.client
import json
import socket
import urllib.error
import urllib.request

import pytest
from kit.local import Engine
from stage import Daemon, free_ports_conf


def post(daemon, body, **headers):
    request = urllib.request.Request(daemon.url + "/jobs", body)
    request.add_header("Authorization", f"Bearer {daemon.token}")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


ORDER = json.dumps({"pipeline": "hello", "engine": "external", "workers": 3}).encode()


def test_a_job_is_rerun_once_it_has_ended_with_the_changes_in_the_order(daemon):
    _, first = post(daemon, ORDER)

    def rerun(job=first["id"], key=None, **more):
        body = json.dumps({"rerun": job, **more}).encode()
        return post(daemon, body, **({"Idempotency_Key": key} if key else {}))

    status, answer = rerun()
    assert (status, answer["error"]["field"]) == (409, "rerun")
    assert "still runs" in answer["error"]["message"]
    assert rerun("absent")[0] == 409
    daemon.ask(f"/jobs/{first['id']}", method="DELETE")
    for field, value in (("workers", 2), ("actors", [1]), ("pipeline", "map"), ("rerun", 5)):
        status, answer = rerun(**{field: value}) if field != "rerun" else rerun(5)
        assert (status, answer["error"]["field"]) == (400, field)
    status, answer = rerun(params={"rounds": "many"})
    assert (status, answer["error"]["field"]) == (400, "params.rounds")
    status, again = rerun(key="again", params={"rounds": 2}, function="other", retries=7)
    assert (status, again["rerun"], again["workers"]) == (201, first["id"], 3)
    assert again["params"] == first["params"] | {"rounds": 2}
    assert (again["function"], again["retries"]) == ("other", 7)
    status, same = rerun(key="again", params={"rounds": 2}, function="other", retries=7)
    assert (status, same["id"]) == (200, again["id"])
    daemon.ask(f"/jobs/{again['id']}", method="DELETE")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "the body must be a JSON object"),
        (b"{", "the body must be a JSON object"),
        (b"\xff\xfe", "the body must be a JSON object"),
        (b"[]", "must be a JSON object, got b'[]'"),
        (b'"hello"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"pipeline": "hello", "workers": NaN}', "workers must be a finite number, got nan"),
        (b'{"pipeline": "hello", "workers": 1000000000}', "between 1 and 10000"),
        (b'{"pipeline": "hello", "workers": -1}', "between 1 and"),
        (b'{"pipeline": "hello", "workers": 1.5}', "a whole number, got 1.5"),
        (b'{"pipeline": "hello", "workers": true}', "a whole number, got True"),
        (b'{"pipeline": ["hello"]}', "pipeline must be a string"),
        (b"{}", "pipeline is required"),
        (b'{"pipeline": "hello", "deadline_s": Infinity}', "deadline_s must be a finite number"),
        (b'{"pipeline": "hello", "event": {"a": [1e999]}}', "event.a[0] must be a finite number"),
        (b'{"pipeline": "hello", "event": {"env": ["A=1"]}}', "event.env must be an object"),
        (b'{"pipeline": "hello", "event": {"env": {"A": null}}}', "event.env.A must be a string"),
        (b'{"pipeline": "hello", "event": {"a": ' + b"[" * 950 + b"]" * 950 + b"}}", "too deeply"),
        (b'{"pipeline": "hello", "pipeline": "hello"}', "pipeline is given more than once"),
        (b'{"\\ud800": 1}', "is unknown; the fields are"),
        (b'{"' + b"a" * 100_000 + b'": 1}', "is unknown; the fields are"),
        (b'{"pipeline": "hello", "event": "x"}', "event must be an object"),
        (b'{"pipeline": "hello", "deadline_s": 1e12}', "deadline_s must be between 1 and"),
        (
            b'{"pipeline": "hello", "deadline_s": 1' + b"0" * 400 + b"}",
            "deadline_s must be a number",
        ),
        (b'{"pipeline": "hello", "regions": ["\\ud800"]}', "regions"),
        (b'{"pipeline": "hello", "function": "a b"}', "function must be a function's name or ARN"),
        (b"[" * 100_000, "the body is nested too deeply"),
    ],
)
def test_an_invalid_order_is_refused(daemon, body, says):
    status, answer = post(daemon, body)
    assert status == 400
    assert says in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 1000
    json.dumps(answer, ensure_ascii=False).encode()  # fails for half of a surrogate pair


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({"engine": "external"}, "engine", "local, got 'external'"),
        ({"functions": ["a b"]}, "functions", "functions must be 1 to 64 letters, digits, - and _"),
        ({"functions": "a"}, "functions", "functions must be a list, got 'a'"),
        ({"regions": []}, "regions", "regions must name at least one region, got []"),
        ({"regions": [1]}, "regions", "regions must be names of AWS regions, got 1"),
        ({"workers": 0}, "workers", "workers must be between 1 and"),
        ({"pipeline": "hallo"}, "pipeline", "unknown pipeline 'hallo'; the pipelines are chain,"),
        ({"bucket": "a\0b"}, "bucket", "bucket must not contain a NUL"),
        ({"functoin": "a"}, "functoin", "functoin is unknown; the fields are"),
    ],
)
def test_an_invalid_checkup_is_refused_with_the_field(daemon, body, field, says):
    with pytest.raises(urllib.error.HTTPError) as told:
        daemon.ask("/doctor", body)
    answer = json.loads(told.value.msg)["error"]
    assert (told.value.code, answer["field"]) == (400, field)
    assert says in answer["message"]


def test_a_checkup_needs_the_token(daemon):
    request = urllib.request.Request(daemon.url + "/doctor", b"{}")
    with pytest.raises(urllib.error.HTTPError) as told:
        urllib.request.urlopen(request, timeout=120)
    assert told.value.code == 401


def test_params_that_the_pipeline_refuses_are_refused_with_the_field(daemon):
    params = {"bucket": "b", "prefix": "p/", "command": "wc {outt}", "out_prefix": "o/"}
    status, answer = post(daemon, json.dumps({"pipeline": "map", "params": params}).encode())
    assert (status, answer["error"]["field"]) == (400, "params.command")
    assert "{outt}" in answer["error"]["message"]


def test_a_body_over_the_limit_is_refused_by_its_announced_length(daemon):
    with socket.create_connection(("127.0.0.1", daemon.ports["control"]), 10) as line:
        line.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n"
        )
        answer = b""
        while part := line.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"at most 1048576 bytes" in answer


def test_a_chunked_body_over_the_limit_is_refused(daemon):
    with socket.create_connection(("127.0.0.1", daemon.ports["control"]), 10) as line:
        line.sendall(
            b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        line.sendall(chunk * 17)
        assert line.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_repeated_key_returns_the_first_job(daemon):
    status, first = post(daemon, ORDER, Idempotency_Key="k1")
    assert status == 201
    status, second = post(daemon, ORDER, Idempotency_Key="k1")
    assert (status, second["id"]) == (200, first["id"])
    assert second["event"]["job"] == first["id"]
    status, other = post(daemon, ORDER, Idempotency_Key="k2")
    assert (status, other["id"] != first["id"]) == (201, True)


def test_a_key_for_another_order_is_refused(daemon):
    _, first = post(daemon, ORDER, Idempotency_Key="k3")
    status, answer = post(daemon, ORDER.replace(b"3", b"4"), Idempotency_Key="k3")
    assert status == 409
    assert f"was used for another order, job {first['id']}" in answer["error"]["message"]


def test_lists_come_in_pages(daemon):
    ids = [post(daemon, ORDER)[1]["id"] for _ in range(3)]
    after = daemon.ask(f"/jobs?after={ids[0]}")
    assert [job["id"] for job in after] == ids[1:]
    assert [job["id"] for job in daemon.ask(f"/jobs?after={ids[0]}&limit=1")] == ids[1:2]
    assert daemon.ask("/jobs?limit=0") == daemon.ask("/jobs?last=0") == []
    assert daemon.ask("/jobs?last=1") == daemon.ask("/jobs")[-1:]
    workers = f"/jobs/{ids[0]}/workers"
    assert [actor["actor"] for actor in daemon.ask(f"{workers}?after=0&limit=1")] == [1]
    assert len(daemon.ask(workers)) == 3


@pytest.mark.parametrize(
    "query", ["limit=x", "limit=-1", "last=x", "limit=" + "9" * 5000, "after=nothing"]
)
def test_an_invalid_limit_or_after_is_refused(daemon, query):
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.ask(f"/jobs?{query}")
    assert refused.value.code == 400
    assert json.loads(refused.value.msg)["error"]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("actor", ["9", "x", "-1"])
def test_the_log_of_an_unknown_actor_is_refused(daemon, actor):
    job = post(daemon, ORDER)[1]["id"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        daemon.ask(f"/jobs/{job}/log?actor={actor}")
    assert refused.value.code in (400, 404)


@pytest.mark.parametrize(
    "target", [b"/jobs/%ff", b"/pipelines/%c3%28", b"/jobs/%ff/workers", b"/jobs?after=%ff"]
)
def test_a_path_or_query_that_is_not_utf_8_is_a_json_400(daemon, target):
    status, kind, body = raw(daemon, b"GET %b HTTP/1.1\r\nHost: localhost" % target)
    assert (status, kind) == (400, "application/json")
    assert json.loads(body)["error"]["message"]
    assert "Traceback" not in daemon.process.log.read_text()


@pytest.mark.parametrize(
    "host", [b"\xff", b"a..b", b"[", b"a" * 300, b"x:y:z", b"\xc3\xa9.example", b"", b"[::1]:80"]
)
def test_an_odd_host_is_answered_in_json(daemon, host):
    _, kind, body = raw(daemon, b"GET /jobs HTTP/1.1\r\nHost: " + host)
    assert kind == "application/json"
    json.loads(body)
    assert "Traceback" not in daemon.process.log.read_text()


def test_the_key_of_an_ended_external_job_gives_no_event(daemon):
    _, first = post(daemon, ORDER, Idempotency_Key="ended")
    assert "srvkey" in first["event"]
    daemon.ask(f"/jobs/{first['id']}", method="DELETE")
    _, again = post(daemon, ORDER, Idempotency_Key="ended")
    assert (again["id"], again["state"]) == (first["id"], "cancelled")
    assert "event" not in again


@pytest.mark.parametrize("key", [b"\xff", b"\xc3\x28", b"", b"a\tb", b"1\r\nIdempotency-Key: 2"])
def test_a_bad_idempotency_key_is_refused(daemon, key):
    head = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nIdempotency-Key: " + key
    status, _, body = raw(daemon, head)
    assert status == 400
    assert "Idempotency-Key" in json.loads(body)["error"]["message"]


def raw(daemon, head):
    """Return status, type and body of the answer to a request with this head."""
    with socket.create_connection(("127.0.0.1", daemon.ports["control"]), 10) as line:
        line.sendall(head + f"\r\nAuthorization: Bearer {daemon.token}\r\n\r\n".encode())
        answer = http.client.HTTPResponse(line)
        answer.begin()
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_output_that_is_not_utf_8_does_not_make_an_answer_that_parsers_refuse(daemon):
    params = {"command": r"printf '\377\355\240\200'", "copies": 1}
    order = {"pipeline": "linpack", "function": "png2y4m", "params": params}
    job = daemon.wait(daemon.ask("/jobs", order)["id"])
    for path in (f"/jobs/{job['id']}", f"/jobs/{job['id']}/workers", "/jobs"):
        status, _, body = raw(daemon, f"GET {path} HTTP/1.1\r\nHost: localhost".encode())
        assert status == 200
        json.dumps(json.loads(body), ensure_ascii=False).encode()  # fails for half of a pair
    assert "\N{REPLACEMENT CHARACTER}" in json.dumps(job, ensure_ascii=False)


def status_for(daemon, path, host):
    connection = http.client.HTTPConnection("127.0.0.1", daemon.ports["control"], timeout=120)
    try:
        headers = {"Authorization": f"Bearer {daemon.token}", "Host": host}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/jobs", "/health", "/nothing"])
def test_a_foreign_host_is_refused_even_with_the_token(daemon, path):
    status, answer = status_for(daemon, path, "evil.example:13580")
    assert status == 421
    assert answer["error"]["message"] == (
        "Host must be an IP address, localhost or one of [mu] allowed_hosts, got 'evil.example:13580'"
    )


def test_a_host_that_is_not_utf_8_is_refused(daemon):
    assert status_for(daemon, "/jobs", "\xff\xfe")[0] == 421


@pytest.mark.parametrize("host", ["localhost:1", "127.0.0.1", "[::1]:80"])
def test_the_names_of_this_machine_are_accepted(daemon, host):
    assert status_for(daemon, "/jobs", host)[0] == 200


def test_hosts_that_the_configuration_allows_are_accepted_at_both_ports(tmp_path):
    daemon = Daemon(tmp_path, conf=free_ports_conf(mu="allowed_hosts = mu.example, other"))
    try:
        assert status_for(daemon, "/jobs", "mu.example:8443")[0] == 200
        assert status_for(daemon, "/jobs", "other")[0] == 200
        assert status_for(daemon, "/jobs", "evil.example")[0] == 421
        engine = Engine(daemon.home, daemon.ports["local"], 0, {}, None)
        functions = "/2015-03-31/functions/"
        assert engine.raw("GET", functions, Host="mu.example").status == 200
        assert engine.raw("GET", functions, Host="evil.example").status == 403
    finally:
        daemon.stop()
