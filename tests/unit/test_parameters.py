"""Typed parameters, and what is said when they are wrong."""

import pytest

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
    with pytest.raises(AttributeError, match="no parameter 'shares'; there are name, count"):
        _ = params.shares


@pytest.mark.parametrize(
    ("given", "field", "says"),
    [
        ({}, "p.name", "p.name is required"),
        ({"name": 5}, "p.name", "must be a string; 5 came"),
        ({"name": None}, "p.name", "must be a string; None came"),
        ({"name": "x", "count": "5"}, "p.count", "must be a whole number; '5' came"),
        ({"name": "x", "count": 1.5}, "p.count", "must be a whole number; 1.5 came"),
        ({"name": "x", "count": True}, "p.count", "must be a whole number; True came"),
        ({"name": "x", "count": 0}, "p.count", "at least 1 and at most 10; 0 came"),
        ({"name": "x", "count": 11}, "p.count", "at least 1 and at most 10; 11 came"),
        ({"name": "x", "share": float("nan")}, "p.share", "nan came"),
        ({"name": "x", "share": float("inf")}, "p.share", "must be a number; inf came"),
        ({"name": "x", "keep": 1}, "p.keep", "must be true or false; 1 came"),
        ({"nme": "x"}, "p.nme", "p.nme is not known; the parameters are count, keep, name, share"),
        ([], "p", "p must be a JSON object; [] came"),
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


def test_params_are_a_dict():
    assert Params(a=1) == {"a": 1}


def test_a_default_that_can_change_is_each_jobs_own():
    fields = (Parameter("tags", list, "tags", []),)
    read_fields(fields, {})["tags"].append("mine")
    assert read_fields(fields, {}) == {"tags": []}


def test_a_number_beyond_all_floats_is_refused():
    with pytest.raises(FieldError, match="share must be a number"):
        read_fields(FIELDS, {"name": "x", "share": 10**400})
