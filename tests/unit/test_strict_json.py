"""What mu says in JSON can be read by every parser."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu.strict_json import dumps, loads, pack

texts = st.text(st.characters(codec=None) | st.sampled_from('\\"u\ud800\udcff\U0001f600\0'))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inside: st.lists(inside) | st.dictionaries(texts, inside),
    max_leaves=8,
)


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


@given(values)
def test_any_value_is_read_again_by_a_strict_parser(value):
    text = dumps(value)
    assert text.isascii()
    read = json.loads(text, parse_constant=refuse)
    json.dumps(read, ensure_ascii=False).encode()  # fails for half of a surrogate pair


@given(values)
def test_packed_and_written_values_are_read_as_the_same(value):
    assert json.loads(pack(value)) == json.loads(dumps(value))


@given(values | st.integers(2**63 - 2, 2**70), st.booleans())
def test_what_the_json_module_writes_is_read_as_it_does(value, escaped):
    text = json.dumps(value, ensure_ascii=escaped)
    assert repr(loads(text)) == repr(json.loads(text))


@given(st.text(st.sampled_from('[]{}",:\\ud8-0e.1\n ')))
def test_texts_are_refused_as_the_json_module_does(text):
    def read(load):
        try:
            return repr(load(text))
        except ValueError:
            return None

    assert read(loads) == read(json.loads)


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\ud8")))
def test_valid_text_is_unchanged(text):
    assert json.loads(dumps(text)) == text


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("\udcff", "\ufffd"),
        ("a\ud83d", "a\ufffd"),
        ("\\ud800", "\\ud800"),
        ("\\\ud800", "\\\ufffd"),
        ("\U0001f600\ude00", "\U0001f600\ufffd"),
        (math.nan, None),
        ([math.inf, (-math.inf,)], [None, [None]]),
        ({"a": {"\udcff": math.nan}}, {"a": {"\ufffd": None}}),
    ],
)
def test_what_json_cannot_have_is_replaced(value, read):
    assert json.loads(dumps(value)) == read
