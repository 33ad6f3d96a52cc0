"""The titles of folds."""

import pytest

from fam_ext.options.presets import BUILTIN, DEFAULT, Preset
from fam_ext.ui.titles import more_dials_title, preset_sentence


@pytest.mark.parametrize(
    ("dials", "title"),
    [
        ({}, "More dials: as usual"),
        ({"cutoff": 0.3, "cutoff_reference": "native", "attention": 0.1, "start": 1.0}, "More dials: as usual"),
        ({"am_window": (1.0, 0.0)}, "More dials: 1 changed"),
        ({"am": False, "fm_boundary": "mirrored"}, "More dials: 2 changed"),
    ],
)
def test_usual_is_what_the_default_preset_has(dials, title):
    assert more_dials_title(BUILTIN[DEFAULT].config.replace(**dials)) == title


def test_a_presets_method_that_the_page_does_not_take_is_said():
    assert preset_sentence("mine", Preset("mine", "Soft.", settings={"method": "fam"})) == "Soft."
    said = preset_sentence("mine", Preset("mine", settings={"method": "fam-swap"}))
    assert said == "Your preset mine. Its method, fam-swap, is not the page's to choose: FAM runs."
