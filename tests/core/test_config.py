"""FamConfig: the paper's values, what is refused, and when a part acts."""

import pytest

from fam_ext.core.config import CUTOFFS, MAX_CYCLES, FamConfig
from fam_ext.errors import ConfigError
from fam_ext.options.field import options_of


def test_the_defaults_are_the_papers() -> None:
    config = FamConfig()
    assert (config.cutoff, config.attention, config.start) == (0.5, 0.7, 1.0)
    assert config.fm_window == config.am_window == (1.0, 0.0)
    assert config.fm and config.am and not config.step_invariant
    # SDXL's native side is 128: c = 0.5 reaches half of half of it
    assert {"native": config.cutoff, "target": config.cutoff, "cycles": 128 * config.cutoff / 2} == CUTOFFS


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"cutoff": 1.01}, "cutoff is 1.01; choose 0 to 1"),
        ({"cutoff": 1.01, "cutoff_reference": "target"}, "cutoff is 1.01; choose 0 to 1"),
        ({"cutoff": -0.01}, "cutoff is -0.01"),
        ({"cutoff": MAX_CYCLES + 1, "cutoff_reference": "cycles"}, "cutoff is 513.0; choose 0 to 512"),
        ({"attention": 1.01}, "attention is 1.01; choose 0 to 1"),
        ({"attention": -0.01}, "attention is -0.01"),
        ({"start": 0.0}, "start is 0"),
        ({"start": 1.01}, "start is 1.01"),
        ({"fm_window": (0.0, 1.0)}, "fm_window is"),
        ({"am_window": (1.1, 0.0)}, "am_window is"),
        ({"am_sites": "  "}, "am_sites is '  '; choose \"auto\""),
        ({"am_interp": "cubic"}, "am_interp is 'cubic'"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_is_out_of_range_is_one_sentence(values: dict, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        FamConfig.from_dict(values)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"cutoff": 1.0},
        {"cutoff": 0.0},
        {"cutoff": MAX_CYCLES, "cutoff_reference": "cycles"},
        {"attention": 0.0},
        {"attention": 1.0},
        {"start": 0.01},
        {"fm_window": (0.5, 0.5), "am_window": (1.0, 0.0)},
    ],
)
def test_the_ends_of_each_range_may_be_chosen(values: dict) -> None:
    config = FamConfig.from_dict(values)
    assert FamConfig.from_dict(config.to_dict()) == config == FamConfig().replace(**values)


@pytest.mark.parametrize("part", ["fm", "am"])
def test_a_part_acts_within_its_window_ends_included(part: str) -> None:
    def acts(**values: object) -> list[bool]:
        config = FamConfig().replace(**{f"{part}_window": (0.8, 0.2), **values})
        return [getattr(config, f"{part}_acts_at")(rho) for rho in (0.81, 0.8, 0.5, 0.2, 0.19)]

    assert acts() == [False, True, True, True, False]
    assert not any(acts(**{part: False}))
    assert not any(acts(**{"cutoff" if part == "fm" else "attention": 0.0}))
    assert all(acts(**{"attention" if part == "fm" else "cutoff": 0.0})[1:4])


def test_every_slider_reaches_its_ends_in_small_steps() -> None:
    dials = [spec for spec in options_of(FamConfig) if spec.kind in ("float", "window")]
    assert len(dials) == 6
    for spec in dials:
        assert spec.low is not None and spec.high is not None and spec.step is not None
        steps = (spec.high - spec.low) / spec.step
        assert steps >= 20 and steps == pytest.approx(round(steps)), spec.name
