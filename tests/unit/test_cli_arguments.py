"""Words of the command line become the values of an order."""

import pytest

from mu.cli.arguments import BadArgument, read_event, read_params

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
        ("str=x", "p requires -p int=...: h (a whole number)"),
    ],
)
def test_a_word_of_another_type_is_refused(word, says):
    with pytest.raises(BadArgument) as refused:
        read_params(KINDS, [word])
    assert says in str(refused.value)


def test_an_event_is_given_as_text_or_in_a_file(tmp_path):
    (tmp_path / "event").write_text('{"a": 1}')
    assert read_event('{"a": 1}') == read_event(f"@{tmp_path}/event") == {"a": 1}
