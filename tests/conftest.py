"""`make unit` leaves out what is slow, and draws a tenth of the inputs. A toy model for every command's tests."""

import pytest

from tests.inputs import draw_few


def pytest_configure(config):
    if "not slow" in config.option.markexpr:
        draw_few()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a toy model, as text."""
    from tests.hosts import toys  # torch: most tests need none

    folder = tmp_path_factory.mktemp("toy")
    toys.sd_pipeline().save_pretrained(folder)
    return str(folder)
