"""docs/pipelines-reference.md describes every pipeline and parameter, and its orders are valid."""

import re
from pathlib import Path

import pytest

from mu.config import Config
from mu.jobs.orders import read_order
from mu.registry import Registry

PAGE = (Path(__file__).parents[2] / "docs" / "pipelines-reference.md").read_text()
PIPELINES = Registry.installed().pipelines
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}


@pytest.mark.parametrize("order", re.findall(r"JOBS -d '(\{.*?\})'\n", PAGE, re.DOTALL))
def test_every_order_on_the_page_is_valid(order):
    spec = read_order(order.encode(), Config(), PIPELINES, ["local"])
    getattr(spec.pipeline, "check", lambda params: None)(spec.params)


@pytest.mark.parametrize("section", sorted(SECTIONS))
def test_every_section_describes_a_pipeline_and_all_its_parameters(section):
    shared = SECTIONS["ffmpeg_split"] if section == "ffmpeg_split_upload" else ""
    for parameter in PIPELINES[section].parameters:
        assert f"`{parameter.name}`" in SECTIONS[section] + shared, parameter.name


def test_the_page_has_every_pipeline_of_mu_and_map_comes_first():
    own = [name for name, one in PIPELINES.items() if type(one).__module__.startswith("mu.")]
    assert sorted(SECTIONS) == sorted(own)
    assert next(iter(SECTIONS)) == "map"


def test_pipelines_whose_workers_exchange_data_say_that_they_use_the_relay():
    using = [name for name, one in PIPELINES.items() if one.uses_relay]
    assert sorted(using) == ["chain", "xcenc", "xcenc7"]
    assert [name for name, one in PIPELINES.items() if one.relay_keep and name not in using] == []
