"""docs/samplers.md says what the tables say, and no difference smaller than what is measured."""

import re

import pytest

from fam_ext.samplers.names import CFG_SHARE, OFFERED
from tests.hosts import ldm_toys
from tests.samplers import references
from tools import samplers_page


def stated():
    """Return the differences on the page, by sampler and reference."""
    rows = re.findall(r"^\| ([^|]+) \|[^|]*\|[^|]*\|[^|]*\| (\S*) ?\| (\S*) ?\|", samplers_page.FILE.read_text(), re.M)
    found = {name: {"diffusers": one, "k-diffusion": other} for name, one, other in rows if name in OFFERED}
    return {name: {key: float(value) for key, value in cells.items() if value} for name, cells in found.items()}


def test_the_page_is_up_to_date():
    differences = {name: {key: value / 3.1 for key, value in cells.items()} for name, cells in stated().items()}
    assert samplers_page.FILE.read_text(encoding="utf-8") == samplers_page.page(differences)
    assert all(cells and max(cells.values()) <= 1e-4 for cells in stated().values())


@pytest.mark.slow  # diffusers takes longer to import than a unit file may run
@pytest.mark.skipif(not ldm_toys.HAS_K_DIFFUSION, reason=ldm_toys.WITHOUT)
@pytest.mark.parametrize("name", OFFERED)
def test_no_difference_is_larger_than_the_page_says(name):
    if name in CFG_SHARE and not references.HAS_WEBUI:
        pytest.skip(references.WITHOUT_WEBUI)
    measured = references.differences(name, kinds=("epsilon",))
    assert measured.keys() == stated()[name].keys()
    assert all(value <= stated()[name][reference] for reference, value in measured.items())
