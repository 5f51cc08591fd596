"""Typed parameters, and what is said when they are wrong."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mu.parameters import FieldError, Parameter, Params, read_fields

FIELDS = (
    Parameter("name", str, "a name"),
    Parameter("count", int, "how many", 3, minimum=1, maximum=10),
    Parameter("share", float, "a part", 0.5, minimum=0, maximum=1),
    Parameter("keep", bool, "whether", False),
)


def test_defaults_fill_what_is_not_given():
    assert read_fields(FIELDS, {"name": "x"}) == {
        "name": "x",
        "count": 3,
        "share": 0.5,
        "keep": False,
    }


def test_values_are_attributes_too():
    params = read_fields(FIELDS, {"name": "x", "share": 1})
    assert params.share == 1.0
    assert isinstance(params.share, float)
    with pytest.raises(
        AttributeError, match="unknown parameter 'shares'; the parameters are name, count"
    ):
        _ = params.shares


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({}, "p.name", "p.name is required"),
        ({"name": 5}, "p.name", "must be a string, got 5"),
        ({"name": None}, "p.name", "must be a string, got None"),
        ({"name": "x", "count": "5"}, "p.count", "must be a whole number, got '5'"),
        ({"name": "x", "count": 1.5}, "p.count", "must be a whole number, got 1.5"),
        ({"name": "x", "count": True}, "p.count", "must be a whole number, got True"),
        ({"name": "x", "count": 0}, "p.count", "between 1 and 10, got 0"),
        ({"name": "x", "count": 11}, "p.count", "between 1 and 10, got 11"),
        ({"name": "x", "share": float("nan")}, "p.share", "got nan"),
        ({"name": "x", "share": float("inf")}, "p.share", "must be a number, got inf"),
        ({"name": "x", "keep": 1}, "p.keep", "must be true or false, got 1"),
        ({"nme": "x"}, "p.nme", "p.nme is unknown; the parameters are count, keep, name, share"),
        ([], "p", "p must be a JSON object, got []"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(given, field, says):
    with pytest.raises(FieldError) as refused:
        read_fields(FIELDS, given, "p")
    assert refused.value.field == field
    assert says in str(refused.value)


def test_a_parameter_describes_itself():
    assert FIELDS[0].describe() == {
        "name": "name",
        "type": "str",
        "help": "a name",
        "required": True,
    }
    assert FIELDS[1].describe()["default"] == 3


@pytest.mark.parametrize(("bounds", "says"), [((1, None), "at least 1"), ((None, 5), "at most 5")])
def test_a_value_beyond_the_only_bound_is_refused(bounds, says):
    field = Parameter("n", int, "", 1, *bounds)
    with pytest.raises(FieldError, match=f"params.n must be {says}, got"):
        read_fields([field], {"n": 0 if bounds[0] else 6}, "params")


def test_params_are_a_dict():
    params = Params(a=1)
    assert params == {"a": 1}
    assert list(params.items()) == [("a", 1)]
    assert params.get("b", 2) == 2


NAMES = [
    "keys",
    "items",
    "get",
    "values",
    "copy",
    "update",
    "pop",
    "clear",
    "setdefault",
    "popitem",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_may_be_called_like_a_method_of_dict(name):
    fields = (Parameter(name, list, "a list"), Parameter("n", int, "a number", 1))
    params = Params(read_fields(fields, {name: ["x"]}), workers=2)
    whole = {name: ["x"], "n": 1, "workers": 2}
    assert getattr(params, name) == params[name] == ["x"]
    assert name in params
    assert list(params) == list(whole)
    assert dict(params) == {**params} == params | {} == dict(**params) == whole
    assert json.loads(json.dumps(dict(params))) == whole
    assert (copy.deepcopy(params), pickle.loads(pickle.dumps(params))) == (whole, whole)
    assert isinstance(copy.deepcopy(params), Params)


def test_a_method_of_dict_is_there_where_no_parameter_has_its_name():
    assert list(Params(keys=["x"]).values()) == [["x"]]
    assert list(Params(values=["x"]).keys()) == ["values"]


def test_a_default_that_can_change_is_each_jobs_own():
    fields = (Parameter("tags", list, "tags", []),)
    read_fields(fields, {})["tags"].append("mine")
    assert read_fields(fields, {}) == {"tags": []}


def test_a_number_beyond_all_floats_is_refused():
    with pytest.raises(FieldError, match="share must be a number"):
        read_fields(FIELDS, {"name": "x", "share": 10**400})


# ---------------------------------------------------------------- for any value

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
KINDS = {bool: True, int: 3, float: 0.5, str: "", list: [], dict: {}}


@given(st.dictionaries(st.text(), VALUES))
def test_params_behave_as_a_dict_whatever_their_names_are(values):
    params = Params(values)
    assert params == values
    assert list(params) == list(values)
    for name, value in values.items():
        assert name in params
        assert params[name] is value
        assert getattr(params, name) is value
    whole = dict(params)
    assert type(whole) is dict
    assert whole == values


@given(
    st.sampled_from(list(KINDS)),
    st.none() | st.integers(-5, 5),
    st.none() | st.integers(-5, 5),
    VALUES,
)
def test_a_value_is_read_with_its_kind_and_bounds_or_refused_by_name(kind, low, high, value):
    bounds = (low, high) if kind in (int, float) else (None, None)
    field = Parameter("x", kind, "", KINDS[kind], *bounds)
    read, refusal = outcome(field, value)
    if refusal is None:
        assert type(read) is kind
        assert read == value
        assert bounds[0] is None or read >= bounds[0]
        assert bounds[1] is None or read <= bounds[1]
    else:
        said = str(refusal)
        assert refusal.field.startswith("params.x")
        assert said.removeprefix("a name in ").startswith(f"{refusal.field} must ")
        inside = "must not contain a NUL" in said or "must be valid Unicode" in said
        assert inside or said.endswith(f", got {value!r:.200}")


def outcome(field, value):
    """Return the value that was read, and the error if it was refused."""
    try:
        return read_fields([field], {field.name: value}, "params")[field.name], None
    except FieldError as refusal:
        return None, refusal
