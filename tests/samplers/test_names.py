"""The table of names, which planning reads without torch, and the table of the code say the same."""

import pytest

from fam_ext.samplers import names, schedules
from fam_ext.samplers.table import SAMPLERS


def test_the_tables_are_one() -> None:
    assert list(SAMPLERS) == list(names.OFFERED)
    assert set(names.OFFERED.values()) <= set(schedules.WEBUI)
    assert {"Automatic", *schedules.WEBUI} == set(names.OFFERED_SCHEDULES)
    assert {name for name, entry in SAMPLERS.items() if entry.preserving} == set(names.OWN_SCHEDULES)
    for name, own in names.OWN_SCHEDULES.items():
        assert set(own) == set(SAMPLERS[name].diffusers)
    spaced = {name for name, entry in SAMPLERS.items() if "Karras" in entry.diffusers and not entry.whole}
    assert spaced == set(names.SPACED_ENDS)
    assert not set(names.REFUSED) & set(names.OFFERED)


def test_every_offered_name_is_a_known_spelling_and_is_taken() -> None:
    for name in names.OFFERED:
        assert names.sampler(name) == (name, None)
        for schedule in names.OFFERED_SCHEDULES:
            assert names.schedule(schedule) == schedule
            runs, plan = names.split_name(name, schedule)
            assert runs == name and plan in schedules.WEBUI
            chosen, asked, notes = names.choose(name, schedule)
            assert chosen == name and names.split_name(chosen, asked) == (runs, plan)
            # a note where another one than was asked for runs, and only there
            same = schedule in (plan, "Automatic") or schedule in names.SAME_AS_OWN
            assert bool(notes) == (not same)


def test_the_webuis_names_stay_as_they_are() -> None:
    """In the WebUI a picture's own sampler runs: another name for it would be another picture without a word."""
    webui = (
        *("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 3M SDE", "Euler a"),
        *("Euler", "LMS", "Heun", "DPM2", "DPM2 a", "DPM fast", "DPM adaptive", "Restart", "DDIM", "DDIM CFG++"),
        *("PLMS", "UniPC", "LCM"),
    )
    for name in webui:
        assert names.usual(name, None) == (name, None)
        assert bool(names.choose(name, "Automatic")[2]) == (name not in names.OFFERED)


@pytest.mark.parametrize(
    ("name", "schedule", "usual"),
    [
        ("DPM++ 2M Karras", None, ("DPM++ 2M", "Karras")),
        ("DPM++ 2M Karras", "Automatic", ("DPM++ 2M", "Karras")),
        ("DPM++ 2M Karras", "Exponential", ("DPM++ 2M", "Exponential")),
        ("dpmpp_2m", "karras", ("DPM++ 2M", "Karras")),
    ],
)
def test_a_schedule_in_the_samplers_name_counts_where_no_other_is_said(name, schedule, usual) -> None:
    assert names.usual(name, schedule) == usual


@pytest.mark.parametrize(
    ("sampler", "schedule", "spacing"),
    [
        ("Euler", "Uniform", "trailing"),
        ("DPM2", "Uniform", "trailing"),
        ("Heun", "Karras", "trailing"),
        ("DPM++ 2M", "Karras", None),
        ("DPM2", "Karras", None),
        ("Euler", "Beta", None),
        ("Euler", "SGM Uniform", None),
        ("LCM", "Uniform", None),
    ],
)
def test_a_spacing_is_said_where_it_acts(sampler: str, schedule: str, spacing: str | None) -> None:
    """And there alone it changes the levels."""
    from fam_ext.samplers.run import SamplerRun
    from fam_ext.samplers.trained import Trained
    from tests.hosts.toys import training

    assert names.spacing_that_runs(sampler, schedule, "trailing") == spacing
    trained = Trained.of(training())
    one, other = (
        SamplerRun(trained, sampler, schedule, steps=7, seeds=[1], spacing=given).levels
        for given in ("trailing", "leading")
    )
    assert (one != other) == (spacing is not None)
