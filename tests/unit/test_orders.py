"""Orders as people write them: taken and right, or refused with the key that is wrong."""

import json

import pytest

from mu.config import Config
from mu.jobs.event_keys import REQUIRED_KEYS
from mu.jobs.function_name import FunctionName
from mu.jobs.orders import read_order
from mu.parameters import FieldError, Parameter
from mu.pipelines.hello import hello
from mu.plugins import Engine

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:film"


class ClusterEngine(Engine):
    """Has options, of which orders may set two."""

    name = "cluster"
    options = (
        Parameter("folder", str, "where", ""),
        Parameter("cpus", int, "how many", 1, 1),
        Parameter("partition", str, "which", ""),
    )
    order_options = ("cpus", "partition")

    def launch(self, invocation):
        raise NotImplementedError

    def check(self, options):
        if options.get("partition") == "bad":
            raise FieldError("partition", "partition must be good")


def read(body=None, earlier=None, **fields):
    body = body or json.dumps({"pipeline": "hello", **fields}).encode()
    engines = ["local", "lambda", "external"]
    plugged = {"cluster": ClusterEngine()}
    return read_order(body, Config(), {"hello": hello}, [*engines, "cluster"], "", earlier, plugged)


def refusal(*args, **fields):
    with pytest.raises(FieldError) as refused:
        read(*args, **fields)
    return refused.value.field, str(refused.value)


@pytest.mark.parametrize(
    ("event", "field", "says"),
    [
        ({"env": "A=1"}, "event.env", "event.env must be an object of strings, got 'A=1'"),
        ({"env": ["A"]}, "event.env", "must be an object of strings"),
        ({"env": {"A": {}}}, "event.env.A", "event.env.A must be a string, got {}"),
        ({"env": {"A": None}}, "event.env.A", "must be a string, got None"),
        ({"env": {"A": True}}, "event.env.A", "must be a string, got True"),
        ({"env": {"": "a"}}, "event.env", "event.env: '' is not a valid variable name"),
        ({"env": {"A=B": "a"}}, "event.env", "'A=B' is not a valid variable name"),
        ({"env": {"A": "b" * 131_070}}, "event.env.A", "less than 131072 bytes, got 131073"),
        ({"port": "http"}, "event.port", "event.port must be an integer from 1 to 65535"),
        ({"mode": 0}, "event.mode", "event.mode must be 1 or 2, got 0"),
        ({"addr": None}, "event.addr", "event.addr must not be null"),
        ({"launch": "x"}, "event.launch", "event.launch cannot be set"),
        ({"reconnect_s": 10**400}, "event.reconnect_s", "must be at least 0 seconds"),
        ({"quality": [1]}, "event.quality", "event.quality must be a string"),
        ({"output_limit": 2**30}, "event.output_limit", "from 0 to 8388608"),
    ],
)
def test_an_event_that_workers_would_refuse_is_refused_when_it_is_ordered(event, field, says):
    assert refusal(event=event)[0] == field
    assert says in refusal(event=event)[1]


@pytest.mark.parametrize(
    "event",
    [
        {"env": {"A": "b", "N": 1, "F": 1.5, "Empty": ""}},
        {"env": {"A": "b" * 131_069}},
        {"env": None, "bucket": None},
        {"mine": {"any": ["thing", None]}, "mode": 2, "port": 80, "addr": "10.0.0.1"},
        {"srvkey": "key"},
    ],
)
def test_an_event_that_workers_take_is_taken(event):
    assert read(event=event).event == event


def test_all_keys_that_mu_sets_must_have_a_value():
    for key in REQUIRED_KEYS:
        assert refusal(event={key: None})[0] == f"event.{key}"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize(
    ("form", "field"),
    [
        ('"workers": %s', "workers"),
        ('"max_cost_usd": %s', "max_cost_usd"),
        ('"params": {"rounds": %s}', "params.rounds"),
        ('"event": {"env": {"A": %s}}', "event.env.A"),
        ('"event": {"mine": [1, [%s]]}', "event.mine[1][0]"),
    ],
)
def test_a_number_that_json_does_not_have_is_refused(number, form, field):
    where, says = refusal(b'{"pipeline": "hello", %s}' % (form % number).encode())
    assert where == field
    assert f"{field} must be a finite number, got " in says


@pytest.mark.parametrize("depth", [100, 500, 950, 5_000, 200_000])
def test_deep_nesting_is_refused(depth):
    inside = b'{"a":' * depth + b"1" + b"}" * depth
    assert "nested too deeply" in refusal(b'{"pipeline": "hello", "event": %s}' % inside)[1]
    inside = b"[" * depth + b"]" * depth
    assert "at most 100" in refusal(b'{"pipeline": "hello", "event": {"a": %s}}' % inside)[1]


def test_nesting_up_to_the_limit_is_taken():
    body = b'{"pipeline": "hello", "event": {"a": %s}}' % (b"[" * 98 + b"]" * 98)
    assert json.dumps(read(body).order)


def test_a_key_that_is_given_twice_is_refused():
    body = b'{"pipeline": "hello", "workers": 1, "workers": 100}'
    assert refusal(body) == ("workers", "workers is given more than once")


@pytest.mark.parametrize(
    "field", ["pipeline", "engine", "function", "on_failure", "regions", "actors", "workers"]
)
def test_an_error_is_short_however_long_the_value(field):
    for value in ("x" * 100_000, ["x" * 100_000], {"x" * 100_000: 1}):
        assert len(refusal(**{field: value})[1]) < 1_000


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("film", "film-1"),
        ("film:7", "film-1:7"),
        ("film:$LATEST", "film-1:$LATEST"),
        ("film:prod_2-a", "film-1:prod_2-a"),
        ("123456789012:film", "123456789012:film-1"),
        ("123456789012:function:film:prod", "123456789012:function:film-1:prod"),
        ("function:film", "function:film-1"),
        ("eu-west-1:123456789012:film:prod", "eu-west-1:123456789012:film-1:prod"),
        (ARN, ARN + "-1"),
        (ARN + ":prod", ARN + "-1:prod"),
        (
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:film",
            "arn:aws-cn:lambda:cn-north-1:123456789012:function:film-1",
        ),
    ],
)
def test_a_copys_number_belongs_to_the_name_and_not_to_the_version(name, copy):
    assert FunctionName.parse(name).copy(1) == copy
    assert read(function=name, copies=2).functions[1] == copy
    assert read(function=name).functions == [name]


@pytest.mark.parametrize(
    "name",
    [
        *(" film", "film ", "fi lm", "film:", "film::1", "film:1:2", "film:$OLDEST", "fílm", "#"),
        *("film\n", "film/x", "arn:aws:lambda:eu-west-1:1:function:film", "arn:aws:s3:::film"),
        "x" * 257,
    ],
)
def test_what_is_no_functions_name_is_refused(name):
    assert refusal(function=name)[0] == "function"


def test_the_region_of_an_arn_is_where_the_job_runs():
    assert read(function=ARN).regions == ("eu-west-1",)
    assert read(function="eu-west-1:123456789012:film").regions == ("eu-west-1",)
    assert read(function=ARN, regions=["eu-west-1"]).regions == ("eu-west-1",)
    field, says = refusal(function=ARN, regions=["eu-west-1", "us-east-1"])
    assert field == "regions"
    assert "regions must be ['eu-west-1'], where the function's ARN says it is" in says


def test_an_order_is_the_same_when_it_is_read_again_after_a_restart():
    order = read(function=ARN + ":7", copies=3, event={"env": {"A": "b"}}).order
    assert read(json.dumps(order).encode()).order == order


def test_a_rerun_takes_the_earlier_order_with_the_changes_that_are_given():
    earlier = read(actors=[0, 2], copies=3, function="film", retries=7, params={"text": "a"}).order
    body: dict[str, object] = {"rerun": "j1", "params": {"rounds": 2}}
    again = read(json.dumps(body).encode(), earlier)
    assert (again.rerun, again.actors, again.retries, again.copies) == ("j1", (), 7, 3)
    assert (again.params.text, again.params.rounds) == ("a", 2)
    body |= {"function": "other", "retries": 0}
    again = read(json.dumps(body).encode(), earlier)
    assert (again.functions, again.retries) == (["other"], 0)
    kept = read(json.dumps(again.order).encode())
    assert kept.rerun == "j1", "the journal has it"


def test_stragglers_below_the_median_are_refused():
    field, says = refusal(stragglers=0.5)
    assert (field, says) == (
        "stragglers",
        "stragglers must be 0 (never) or at least 1, got 0.5",
    )
    assert [read(stragglers=factor).stragglers for factor in (0, 1, 2.5)] == [0, 1, 2.5]


@pytest.mark.parametrize(
    "url",
    [
        "example.org/hook",
        "ftp://example.org/",
        "file:///etc/passwd",
        "http://",
        "https:///hook",
        "https://user:word@example.org/",
        "https://@example.org/",
        "https://example.org/#top",
        "https://example.org:0/",
        "https://example.org:http/",
        "https://example.org:65536/",
        "https://[::1/",
        "https://example.org/a b",
        "https://example.org/\r\nX-More: 1",
        "https://ex\u00e4mple.org/",
        "https://example.org/" + "a" * 2000,
    ],
)
def test_a_url_that_cannot_be_notified_is_refused(url):
    field, says = refusal(notify_url=url)
    assert field == "notify_url"
    assert says.startswith(
        "notify_url must be an http:// or https:// URL of at most 2000 printable"
    )


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "https://[::1]/a?b=c%20d&e", ""])
def test_a_url_to_notify_is_kept_for_the_end_and_for_reruns(url):
    spec = read(notify_url=url)
    assert (spec.notify_url, spec.order["notify_url"]) == (url, url)


@pytest.mark.parametrize(
    ("engine", "options", "says"),
    [
        ("cluster", {"cpus": 0}, "engine_options.cpus must be at least 1, got 0"),
        ("cluster", {"cpus": "two"}, "engine_options.cpus must be a whole number, got 'two'"),
        ("cluster", {"partition": "bad"}, "engine_options.partition must be good"),
        ("cluster", {"folder": "/"}, "folder is unknown; engine cluster has cpus, partition"),
        ("local", {"cpus": 2}, "engine_options.cpus is unknown: engine local has none"),
    ],
)
def test_options_that_an_engine_does_not_take_are_refused(engine, options, says):
    field, said = refusal(engine=engine, engine_options=options)
    assert field == f"engine_options.{next(iter(options))}"
    assert says in said


def test_an_order_sets_options_as_values_or_as_in_mu_conf():
    spec = read(engine="cluster", engine_options={"cpus": "2", "partition": "4"})
    assert spec.engine_options == {"cpus": 2, "partition": "4"}


def test_a_rerun_has_the_options_of_the_job_unless_its_engine_is_another():
    earlier = dict(read(engine="cluster", engine_options={"cpus": 2}).order)
    assert read(b'{"rerun": "j1"}', earlier).engine_options == {"cpus": 2}
    assert read(b'{"rerun": "j1", "engine": "local"}', earlier).engine_options == {}
