"""What is refused before a picture begins."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from fam_ext.core.config import FamConfig
from fam_ext.errors import ConfigError, UnsupportedModelError
from fam_ext.methods.catalog import METHODS
from fam_ext.options.job import Job
from fam_ext.options.parts import Rule

MODEL = SimpleNamespace(model=SimpleNamespace(diffusion_model=None))


@pytest.mark.parametrize(("chosen", "active"), [("TensorRT", None), (None, "TensorRT"), (None, None)])
def test_am_is_refused_where_the_settings_choose_an_sd_unet_and_where_one_runs(webui, monkeypatch, chosen, active):
    """The WebUI changes the one that runs as it begins to sample."""
    part, config = webui("known"), FamConfig()
    monkeypatch.setattr(webui.unets, "get_unet_option", lambda: chosen)
    monkeypatch.setattr(webui.unets, "current_unet", active)
    monkeypatch.setattr(part, "up_blocks", lambda network: [])
    monkeypatch.setattr(part, "select_sites", lambda blocks, sites: [])
    for unet, sampling in ((chosen, False), (active, True)):
        if unet is None:
            part.check_model(MODEL, config, sampling=sampling)
        else:
            with pytest.raises(UnsupportedModelError, match="SD Unet"):
                part.check_model(MODEL, config, sampling=sampling)
        part.check_model(MODEL, config.replace(am=False), sampling=sampling)


def test_a_checkpoint_may_be_named_in_part_only_where_the_webui_takes_such_a_name(webui, monkeypatch):
    part, found = webui("known"), SimpleNamespace(title="dreamshaper_8.safetensors [879db523c3]")
    monkeypatch.setattr(part.sd_models, "get_closet_checkpoint_match", lambda name: found)
    monkeypatch.setattr(part.sd_models, "checkpoint_aliases", {"dreamshaper_8": found})
    monkeypatch.setattr(part.sd_models, "checkpoint_tiles", lambda use_short: ["dreamshaper_8.safetensors"])
    assert part.checkpoint("dreamshaper") == part.checkpoint("dreamshaper_8", in_part=False) == found.title
    with pytest.raises(ConfigError, match=r"model is 'dreamshaper'; choose from dreamshaper_8\.safetensors"):
        part.checkpoint("dreamshaper", in_part=False)


def test_a_rule_without_a_value_names_nothing_that_could_be_missing(webui, monkeypatch):
    part, named = webui("renderer"), []
    monkeypatch.setattr(part, "check_known", lambda *said: named.append(said[0]))
    monkeypatch.setattr(part, "check_model", lambda *said: None)
    monkeypatch.setattr(part, "upscalers", list)
    part.check_job(Job.of(("a",), "b", rules={"sampler": Rule("take"), "schedule": Rule("take")}))
    assert named == ["upscaler"]


@pytest.mark.parametrize(("known", "made", "said"), [("ab", None, "ab"), (None, "cd", "cd"), (None, None, "x.ckpt")])
def test_what_is_loaded_goes_by_its_hash(webui, monkeypatch, known, made, said):
    part = webui("known")
    info = SimpleNamespace(shorthash=known, calculate_shorthash=lambda: made, name="x.ckpt")
    monkeypatch.setattr(part.shared, "opts", SimpleNamespace(sd_model_checkpoint="x", sd_vae="Automatic"))
    monkeypatch.setattr(part.sd_models, "checkpoint_aliases", {"x": info})
    assert part.loaded() == (said, "Automatic")
    monkeypatch.setattr(part.sd_models, "checkpoint_aliases", {})
    assert part.loaded() == ("", "Automatic")


def test_the_docs_name_every_method_its_file_and_whether_it_runs_in_the_webui(webui):
    text = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    gives, where = webui("known").GIVES, {True: "yes", False: "no"}
    wanted = [
        (name, where[entry.needs <= gives], entry.code.partition(":")[0].rpartition(".")[2])
        for name, entry in METHODS.items()
    ]
    rows = re.findall(r"^\| `(.+?)` \|.*\| (yes|no) \| `(\w+)\.py` \|$", text, re.M)
    assert sorted(rows) == sorted(wanted)
