"""Every value is judged at the door, and every door has the same defaults."""

import pytest

from tests.webui.server import TITLE, encoded


def pixels_of(server, *args):
    """Return pixels and FAM keys of a generation with the script's arguments as they are."""
    answer = server.generate(hr_upscaler="Lanczos", others={TITLE: {"args": list(args)}})
    return answer


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([5], ["5", "true or false"]),
        (["x"], ["'x'", "true or false"]),
        ([None], ["None", "true or false"]),
        ([True, "no such preset"], ["no such preset", "balanced"]),
        ([True, 7], ["preset", "7"]),
        ([{"am_sites": "no.such.*"}], ["am_sites", "no.such.*"]),
        ([{"preset": "balanced", "cutoff": 20}], ["cutoff", "0 to 1", "cutoff_reference"]),
        ([{"cutoff": 10**400}], ["cutoff"]),
        ([{"preset": None}], ["preset", "None"]),
    ],
)
def test_arguments_that_cannot_be_are_refused(server, args, words):
    answer = pixels_of(server, *args)
    assert answer.status == 422 and all(word in answer.error for word in words), answer.error


def test_a_users_mistake_is_one_line_in_the_log(server):
    before = len(server.log())
    answer = server.ask("/sdapi/v1/txt2img", {"enable_hr": True, "alwayson_scripts": {TITLE: {"args": [{"start": 7}]}}})
    assert answer[0] == 422 and answer[1]["detail"].startswith("start is 7")
    said = server.log()[before:]
    assert said.count("start is 7") == 1 and "Traceback" not in said, said


@pytest.mark.parametrize("fields", [{"hr_scale": 1}, {"hr_resize_x": 64, "hr_resize_y": 64}, {"hr_scale": 0.5}])
def test_a_hires_pass_that_enlarges_nothing_is_refused(server, fields):
    answer = server.generate({}, **fields)
    assert answer.status == 422 and "64 x 64" in answer.error and "larger" in answer.error


def test_every_door_has_the_same_defaults(server):
    balanced = pixels_of(server, {"preset": "balanced"})
    assert balanced.fam["FAM cutoff"] == "28" and balanced.fam["FAM cutoff reference"] == "cycles"
    for args in ([{}], [True], [True, "custom"], [True, "balanced"]):
        assert (pixels_of(server, *args).pixels, pixels_of(server, *args).fam) == (balanced.pixels, balanced.fam), args


def test_a_preset_at_its_position_is_that_preset(server):
    named, positional = pixels_of(server, {"preset": "paper"}), pixels_of(server, True, "paper")
    assert (positional.fam, positional.pixels) == (named.fam, named.pixels)


def test_a_cutoff_without_its_unit_is_a_share(server):
    fam = pixels_of(server, {"preset": "balanced", "cutoff": 0.25}).fam
    assert fam["FAM cutoff"] == "0.25" and "FAM cutoff reference" not in fam
    fam = pixels_of(server, {"preset": "balanced", "cutoff": 20, "cutoff_reference": "cycles"}).fam
    assert fam["FAM cutoff"] == "20" and fam["FAM cutoff reference"] == "cycles"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"hr_upscaler": "Magic"}, ["hr_upscaler", "'Magic'", "Lanczos", "Latent"]),
        ({"hr_upscaler": ""}, ["hr_upscaler", "''", "Lanczos"]),
        ({"hr_sampler_name": "Magic"}, ["sampler", "'Magic'", "Euler"]),
        ({"hr_scheduler": "Magic"}, ["hr_scheduler", "'Magic'", "Karras"]),
        ({"hr_checkpoint_name": "Magic"}, ["hr_checkpoint_name", "'Magic'", "fluent-tiny"]),
        ({"override_settings": {"sd_model_checkpoint": "Magic"}}, ["model", "'Magic'", "fluent-tiny"]),
        ({"steps": -1}, ["steps is -1", "at least 1"]),
        ({"hr_second_pass_steps": -1}, ["hr_second_pass_steps is -1", "at least 0"]),
    ],
)
def test_what_this_webui_has_not_is_refused_before_anything_runs(server, fields, words):
    before = len(server.log())
    answer = server.generate({}, **fields)
    assert answer.status == 422 and all(word in answer.error for word in words), answer.error
    said = server.log()[before:]
    assert "Traceback" not in said and "it/s" not in said, said


def test_pictures_of_several_sizes_in_one_batch_are_refused(server, native_picture):
    pictures = [encoded(native_picture), encoded(native_picture.resize((80, 64)))]
    answer = server.generate({}, tab="img2img", init_images=pictures, batch_size=2, width=128, height=128)
    assert answer.status == 422 and "64 x 64 and 80 x 64" in answer.error, answer.error


def test_a_script_that_samples_in_fams_place_is_no_plain_picture(server, native_picture):
    arguments = next(
        entry["args"]
        for entry in server.ask("/sdapi/v1/script-info")[1]
        if entry["name"] == "img2img alternative test" and entry["is_img2img"]
    )
    fields = {"init_images": [encoded(native_picture)], "width": 128, "height": 128}
    values = [argument["value"] for argument in arguments]
    answer = server.generate({}, tab="img2img", script_name="img2img alternative test", script_args=values, **fields)
    assert answer.status != 200 and "sampled past FAM" in answer.error
