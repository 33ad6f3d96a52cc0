"""Whatever a command offers reaches what draws: all of its options at once, with toy pictures for real ones."""

from collections.abc import Iterator

import pytest
import torch
import typer
from PIL import Image

from fam_ext import cli, hires, standalone
from fam_ext.cli.making import MADE, RENDERER
from fam_ext.cli.options import flag
from fam_ext.jobs.contract import Ran, Rendered
from fam_ext.options.renderer import STANDALONE, RendererChoice
from tests.hosts import toys

pytestmark = pytest.mark.slow  # diffusers' networks take longer to import than a unit file may run

COMMANDS = {
    "upscale": ["in", "-o", "out"],
    "try": ["in", "-o", "out", "--presets", "paper"],
    "generate": ["a dog", "-o", "out", "--size", "128x96"],
    "compare": ["in", "--methods", "fam", "-o", "out"],
    "compare on a sheet": ["in/a.png", "--methods", "fam", "-o", "sheet.png"],
    "compare of prompts": ["--methods", "fam", "-o", "out"],
    "bench cost": ["--scales", "2"],
    "bench quality": ["--methods", "fam", "--count", "1", "--out", "out"],
}
SAID = {
    **{"prompt": "a dog", "negative_prompt": "fog", "seed": 7, "steps": 5, "sampler": "Euler", "schedule": "Karras"},
    **{"cfg_scale": 3.5, "clip_skip": 2, "timestep_spacing": "trailing", "method": "hidiffusion+fam", "tile": 512},
    **{"low_memory": True, "cutoff": 12.0, "cutoff_reference": "cycles", "attention": 0.3, "fm": False, "am": False},
    **{"fm_window": (0.9, 0.1), "am_window": (0.8, 0.2), "fm_boundary": "mirrored", "fm_edge": 0.2, "am_sites": "up*"},
    **{"am_interp": "nearest", "am_source": "replay", "reference": "constant", "start": 0.9, "step_invariant": True},
    **{"upsample": "pixel_lanczos"},
}
"""No option has its default here."""
CHOSEN = {
    **{"model": "model", "model_config": "settings", "loras": ("a.safetensors:0.5",), "device": "cpu"},
    **{"dtype": "bfloat16", "offload": "model", "sdxl_clip_l_skip": True, "upscaler": "x4.safetensors"},
}
OWN = {("bench cost", "steps"), ("demo export", "model")}
"""Options of a command's own, which have the name of one of the table."""


def commands(group, before=()) -> Iterator[tuple]:
    """Yield the name of every command, as it is typed, and the command."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield " ".join((*before, name)), command


def offered(command: str) -> dict[str, list[str]]:
    """Return the renderer's and a picture's options that a command offers: their names, and the words that say them."""
    flags = {name for parameter in EVERY[command].params for name in parameter.opts}
    specs = [spec for spec in (*MADE, *RENDERER) if flag(spec) in flags and (command, spec.name) not in OWN]
    return {spec.name: words(spec) for spec in specs}


def words(spec):
    value = (SAID | CHOSEN)[spec.name]
    assert value != spec.default
    if spec.kind == "bool":
        return [flag(spec)]
    if spec.kind == "window":
        return [flag(spec), f"{value[0]},{value[1]}"]
    return [flag(spec), str(value[0] if isinstance(value, tuple) else value)]


EVERY = dict(commands(typer.main.get_command(cli.app)))


@pytest.fixture(scope="module")
def host():
    return standalone.DiffusersHost(
        toys.sd_pipeline(), name="toy", device=torch.device("cpu"), dtype=torch.float32, weights_hash=lambda: "0" * 64
    )


@pytest.fixture
def seen(host, tmp_path, monkeypatch):
    """What was loaded and drawn, by the name of what loads and draws."""
    seen = {"load_pipeline": [], "upscalers.load": [], "requests": [], "upscalers": []}

    class Network:
        name = "network"

    def load_pipeline(model, **loading):
        seen["load_pipeline"].append({"model": model, **loading})
        return host

    def load(file, **more):
        seen["upscalers.load"].append({"upscaler": file, **more})
        return Network

    def native_on(host, request, progress, *, size):
        seen["requests"].append(request)
        return hires.Native(Image.new("RGB", size[::-1], "red"), torch.zeros(1, 4, size[0] // 8, size[1] // 8))

    def render_on(host, image, request, progress, *, upscaler=None, around=None):
        seen["requests"].append(request)
        seen["upscalers"].append(upscaler)
        return Rendered(Image.new("RGB", request.size[::-1], "red"), Ran(seconds=1.0))

    for name, fake in (("load_pipeline", load_pipeline), ("native_on", native_on), ("render_on", render_on)):
        monkeypatch.setattr(standalone, name, fake)
    monkeypatch.setattr(standalone.upscalers, "load", load)
    monkeypatch.setattr("fam_ext.bench.cost_table", lambda *_, **__: [])
    monkeypatch.setenv("FAM_HIRES_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name in ("a.safetensors", "x4.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "in").mkdir()
    Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "in" / "a.png")
    return seen, Network


def test_every_command_that_offers_options_has_its_line_here():
    assert {name for name in EVERY if offered(name)} == {name.split(" o")[0] for name in COMMANDS}


@pytest.mark.parametrize("left_out", ["upsample", "upscaler"])  # which refuse each other
@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_that_a_command_offers_reaches_what_draws(name, left_out, seen, tmp_path):
    seen, network = seen
    command = name.split(" o")[0]
    options = {spec: said for spec, said in offered(command).items() if spec != left_out}
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), *COMMANDS[name], *(word for each in options.values() for word in each)])
    assert ended.value.code == 0

    paths = {name: str(tmp_path / CHOSEN[name]) for name in ("model", "model_config", "upscaler") if name in options}
    loras = tuple(str(tmp_path / lora) for lora in CHOSEN["loras"] if "loras" in options)
    chosen = {name: CHOSEN[name] for name in options if name in CHOSEN} | paths | {"loras": loras}
    wanted = RendererChoice(STANDALONE, **chosen).arguments
    upscaler = wanted.pop("upscaler")
    assert seen["load_pipeline"] == [wanted]
    assert [each["upscaler"] for each in seen["upscalers.load"]] == ([upscaler] if "upscaler" in options else [])

    asked = {name: SAID[name] for name in options if name in SAID}
    assert bool(seen["requests"]) == bool(asked)
    for request in seen["requests"]:
        values = {**vars(request.config), **vars(request)}
        assert {name: values[name] for name in asked} == asked
    assert set(seen["upscalers"]) == ({network if "upscaler" in options else None} if seen["requests"] else set())
