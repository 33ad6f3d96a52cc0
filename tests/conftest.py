"""`make unit` leaves out what is slow, and draws a tenth of the inputs."""

from tests.inputs import draw_few


def pytest_configure(config):
    if "not slow" in config.option.markexpr:
        draw_few()
