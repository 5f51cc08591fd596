"""Words of the command line become the values of an order."""

import pytest

from mu.cli.arguments import MOST_ACTORS, BadArgument, read_actors, read_event, read_params

KINDS = {
    "name": "p",
    "parameters": [
        {"name": name, "type": name, "help": "h", "required": name == "int"}
        for name in ("bool", "int", "float", "str", "list", "dict", "date")
    ],
}


def test_words_become_values_of_the_types_that_the_pipeline_declares():
    words = ["bool=Yes", "int=-3", "float=2", "str=a=b", "list=[1]", 'dict={"a": 1}', "date=x"]
    assert read_params(KINDS, words) == {
        "bool": True,
        "int": -3,
        "float": 2.0,
        "str": "a=b",
        "list": [1],
        "dict": {"a": 1},
        "date": "x",
    }


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("bool=maybe", "-p bool must be true or false, got 'maybe'"),
        ("int=1.5", "-p int must be a whole number, got '1.5'"),
        ("float=inf", "-p float must be a number, got 'inf'"),
        ("list=a,b", "-p list must be a JSON list such as '[\"a\", \"b\"]', got 'a,b'"),
        ("list={}", "-p list must be a JSON list"),
        ("dict=1", "-p dict must be a JSON object"),
        ("str=a\udcff", "-p str must be valid Unicode, got 'a\\udcff'"),
        ("str=x", "p requires -p int=...: h (a whole number)"),
    ],
)
def test_a_word_of_another_type_is_refused(word, says):
    with pytest.raises(BadArgument) as refused:
        read_params(KINDS, [word])
    assert says in str(refused.value)


def test_an_event_is_given_as_text_or_in_a_file(tmp_path):
    (tmp_path / "event").write_text('{"a": 1}')
    (tmp_path / "notepad").write_bytes(b'\xef\xbb\xbf{"a":\r\n1}\r\n')
    for text in ('{"a": 1}', f"@{tmp_path}/event", f"@{tmp_path}/notepad"):
        assert read_event(text) == {"a": 1}


def test_actors_are_numbers_and_ranges():
    assert read_actors("0,7, 12-15") == [0, 7, 12, 13, 14, 15]
    assert read_actors("3-3") == [3]
    assert len(read_actors(f"1-{MOST_ACTORS}")) == MOST_ACTORS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("9-8", "a range must begin with its smaller number, as in 8-9, got 9-8"),
        ("0,1,9-8", "got 9-8"),
        ("", "must be numbers such as 0,7,12-15, got ''"),
        (" ", "must be numbers"),
        ("1,,2", "must be numbers"),
        ("1,", "must be numbers"),
        ("-3", "must be numbers"),
        ("3-", "must be numbers"),
        ("1-2-3", "must be numbers"),
        ("1.5", "must be numbers"),
        ("٣", "must be numbers"),
        ("²", "must be numbers"),
        ("9" * 5000, "must be numbers"),
        ("0-999999999", "may name 1000000 actors"),
        ("0-600000,0-600000", "may name 1000000 actors"),
    ],
)
def test_actors_that_are_not_numbers_are_refused(text, says):
    with pytest.raises(BadArgument) as refused:
        read_actors(text)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 400
