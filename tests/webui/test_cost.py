"""What FM and AM add to a pass in the WebUI: calls of the network, operations, waits for the device. No clock."""

import pytest

from tests.webui.test_whole_host import PROBE

STEPS = 4
FIELDS = {"sampler_name": "Euler", "scheduler": "Automatic", "hr_second_pass_steps": STEPS, "denoising_strength": 1.0}


@pytest.fixture(scope="module")
def counting(start):
    server = start(extension=PROBE)
    yield server
    server.stop()


def counted(server, fam, model):
    """Return what the probe says of the hires pass: calls of the network by size, operations by name."""
    server.ask("/probe/pass?count=true")
    answer = server.generate(fam, **FIELDS, override_settings={"sd_model_checkpoint": model})
    assert answer.status == 200, answer.error
    return server.ask("/probe/pass")[1]


@pytest.mark.parametrize("model", ["fluent-tiny", "fluent-tiny-xl", "tiny-sd15", "tiny-sdxl"])
def test_a_step_costs_one_cut_native_pass_and_little_else(counting, model):
    model = f"{model}.safetensors"
    counted(counting, {"start": 1.0}, model)  # what is computed once: matrices, levels
    plain, fm, both = (
        counted(counting, fam, model)
        for fam in (None, {"start": 1.0, "am": False}, {"start": 1.0, "am_window": [1.0, 0.0]})
    )
    assert plain["calls"] == fm["calls"] == {"16 x 16": STEPS}
    assert both["calls"] == {"16 x 16": STEPS, "8 x 8": STEPS}
    operations = {name: sum(made["operations"].values()) for name, made in zip("pfb", (plain, fm, both), strict=True)}
    sites = counting.last_pass()[3]
    assert operations["f"] - operations["p"] < 80 * STEPS
    # a native pass is the same network, stopped after the last site; a site blends in a few dozen operations
    assert operations["b"] - operations["f"] < operations["p"] + 40 * STEPS * sites
    waits = [made["operations"].get("_local_scalar_dense", 0) for made in (plain, fm, both)]
    assert waits[2] - waits[0] <= 4 * STEPS
