"""`fam-hires compare` onto a page: a toy model makes the pictures."""

import json
from itertools import pairwise

import pytest
from PIL import Image

from fam_ext import cli
from fam_ext.comparison.results import held
from fam_ext.methods.catalog import METHODS
from fam_ext.options.request import HiresRequest
from tests.fake_device import DEVICE, FakeDevice, moved
from tests.hosts import toys

COMMAND = ["--methods", "direct,fam", "--steps", 3, "--device", "cpu"]


def run(capsys, *arguments):
    """Return exit code, what was said, and the errors."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["compare", *map(str, arguments)])
    return ended.value.code, *capsys.readouterr()


def noise(path, side=64):
    Image.effect_noise((side, side), 60).convert("RGB").save(path)
    return path


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_prompts_by_methods_and_scales_and_the_same_again_makes_nothing(model, tmp_path, capsys, monkeypatch):
    (tmp_path / "prompts.txt").write_text("a cat\n\na <b>dog</b>\na cat\n")
    out = tmp_path / "out"
    command = ["--prompts", tmp_path / "prompts.txt", "--scales", "2,1.5", "--model", model, "-o", out, *COMMAND]
    code, said, err = run(capsys, *command)
    assert (code, err) == (0, "") and said.count("structure") == 8 and "compare.html: 0." in said
    first = files(out)
    data = json.loads(first["results.json"])
    assert [row["title"] for row in data["rows"]] == ["a cat", "a <b>dog</b>"]
    cells = {(cell["row"], cell["method"], cell["scale"]): cell for cell in data["cells"]}
    assert len(cells) == 8 and all(cell["file"] in first for cell in cells.values())
    fam, direct = cells["a-cat", "fam", 2.0], cells["a-cat", "direct", 2.0]
    assert fam["settings"]["preset"] == "balanced" and fam["settings"]["cutoff_reference"] == "cycles"
    assert direct["settings"].keys() == {
        "preset",
        "sampler",
        "schedule",
        "steps",
        "cfg_scale",
        "timestep_spacing",
        "clip_skip",
    }
    assert direct["attention"] is None and fam["attention"]["file"] in first
    assert fam["attention"]["native"] == [2, 2] and fam["attention"]["target"] == [4, 4]
    assert fam["seconds"] > 0 and fam["peak_memory"] is None and fam["size"] == [128, 128] and fam["steps"] == 3
    with Image.open(out / fam["file"]) as image:
        assert image.info["parameters"].startswith("a cat\n")

    from fam_ext import hires, standalone

    with monkeypatch.context() as patched:
        patched.setattr(standalone, "render_on", None)
        patched.setattr(hires, "generate_native", None)
        assert run(capsys, *command)[0] == 0
    assert files(out) == first

    # what is gone is made again, to the same pixels; what is new is added
    (out / fam["file"]).unlink()
    command[command.index("direct,fam")] = "direct,fam,upscaler"
    code, said, _ = run(capsys, *command)
    assert code == 0 and said.count("structure") == 5 and "no --upscaler: Lanczos enlarges in upscaler\n" in said
    again = files(out)
    assert again[fam["file"]] == first[fam["file"]] and "upscaler-2x/a-cat.png" in again
    unchanged = first.keys() - {"results.json", "compare.html"}
    assert all(again[name] == first[name] for name in unchanged)

    # other settings: one sentence, and nothing is touched
    for word, sentence in (
        ("--seed", "a cat made with seed 0, now 4"),
        ("--cutoff", "a cat by direct at 2x made with"),
    ):
        code, _, err = run(capsys, *command, word, 4 if word == "--seed" else 0.2)
        assert code == 1 and sentence in err and err.count("\n") == 1
    assert files(out) == again


@pytest.mark.slow
def test_a_lora_of_the_same_name_or_mended_code_does_not_pass_for_the_old(model, tmp_path, capsys, monkeypatch):
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    def train(rank):
        unet = toys.sd_pipeline().unet
        unet.add_adapter(LoraConfig(r=rank, target_modules=["to_q"], init_lora_weights=False))
        layers = get_peft_model_state_dict(unet)
        StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, weight_name="style.safetensors")

    train(1)
    picture, out = noise(tmp_path / "a.png"), tmp_path / "out"
    words = [picture, "--methods", "resize", "--model", model, "--lora", tmp_path / "style.safetensors", "-o", out]
    assert run(capsys, *words)[0] == 0
    first = files(out)
    assert run(capsys, *words)[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr("fam_ext.quality.setting.code_hash", lambda: "mended")
        codes = [run(capsys, *words)]
    train(2)
    codes.append(run(capsys, *words))
    for code, _, err in codes:
        assert code == 1 and "a.png by resize at 2x made with other settings, model files" in err
    assert files(out) == first


@pytest.mark.slow
def test_what_a_folder_holds_is_known_by_what_it_is_and_not_by_its_place_in_the_list(model, tmp_path, capsys):
    """Prompts without a Latin letter, and pictures of one name in two folders, have numbered keys."""
    out = tmp_path / "out"
    words = ["--methods", "resize", "--steps", 1, "--device", "cpu", "--model", model, "-o", out]
    (tmp_path / "both.txt").write_text("猫\n犬\n鳥\n", encoding="utf-8")
    assert run(capsys, "--prompts", tmp_path / "both.txt", *words)[0] == 0
    first = files(out)
    for prompt in ("犬", "鳥"):
        code, said, err = run(capsys, "--prompt", prompt, *words)
        assert (code, err, said.count("structure")) == (0, "", 0)
    assert files(out) == first
    assert run(capsys, "--prompt", "魚", *words)[0] == 0
    assert run(capsys, "--prompt", "", *words)[0] == 0
    rows = json.loads((out / "results.json").read_text())["rows"]
    assert [row["title"] for row in rows] == ["猫", "犬", "鳥", "魚", "(no prompt)"]
    assert len({row["row"] for row in rows}) == len({row["file"] for row in rows}) == 5

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = noise(tmp_path / "one" / "x.png"), noise(tmp_path / "two" / "x.png")
    code, said, _ = run(capsys, one, two, one, *words)  # one of them is given twice
    assert code == 0 and said.count("structure") == 2
    first = files(out)
    assert run(capsys, two, *words)[0] == 0
    assert files(out) == first


@pytest.mark.slow
def test_a_very_small_picture_is_enlarged_first_as_its_note_says(model, tmp_path, capsys):
    picture = noise(tmp_path / "a.png", side=8)
    words = [picture, "--methods", "resize", "--scale", 16, "--model", model, "--prompt", "a cat", "-o"]
    for out in (tmp_path / "out", tmp_path / "sheet.png"):
        code, said, _ = run(capsys, *words, out)
        assert code == 0 and "structure" in said


@pytest.mark.slow
def test_a_page_that_stays_too_large_is_said_to_be(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fam_ext.comparison.page.MOST_BYTES", 2000)
    words = ["--methods", "resize", "--steps", 1, "--device", "cpu", "--model", model, "-o", tmp_path / "out"]
    code, said, err = run(capsys, "--prompt", "a cat", *words)
    assert code == 0 and "at quality 40, sides at 12%" in said and "more than 0.002 MB with the smallest" in err


@pytest.mark.slow
def test_a_folder_that_another_run_fills_is_left_alone(model, tmp_path, capsys):
    words = ["--methods", "resize", "--steps", 1, "--device", "cpu", "--model", model, "-o", tmp_path / "out"]
    assert run(capsys, "--prompt", "a cat", *words)[0] == 0
    first = files(tmp_path / "out")
    with held(tmp_path / "out"):
        code, _, err = run(capsys, "--prompt", "a dog", *words)
        assert code == 2 and "is being filled by another run" in err and err.count("\n") == 1
    assert files(tmp_path / "out") == first
    (tmp_path / "out" / "resize-2x" / ".fam-0123.part").write_bytes(b"of a run that was killed")
    assert run(capsys, "--prompt", "a dog", *words)[0] == 0
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.slow
def test_a_picture_that_was_damaged_is_named_first_and_one_that_is_gone_is_said_to_be(
    model, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "out"
    words = ["--methods", "fam", "--steps", 2, "--device", "cpu", "--model", model, "-o", out]
    assert run(capsys, "--prompt", "a cat", *words)[0] == 0
    first = files(out)
    paths = [out / "fam-2x" / "a-cat.png", out / "native" / "a-cat.png", out / "attention" / "fam-2x-a-cat.png"]
    for path in paths:
        data = path.read_bytes()
        path.write_bytes(data[:-99])
        with monkeypatch.context() as patched:
            patched.setattr("fam_ext.cli.compare.load_renderer", None)
            code, _, err = run(capsys, "--prompt", "a dog", *words)  # whoever's it is
        assert code == 2 and f"{path} cannot be read" in err and "take it away" in err and err.count("\n") == 1
        path.write_bytes(data)
    assert files(out) == first
    for path in paths:
        path.unlink()
    assert run(capsys, "--prompt", "a dog", *words)[0] == 0
    data = json.loads((out / "compare.html").read_text().partition('id="data">')[2].partition("</script>")[0])
    assert [each["src"] is None for each in data["rows"] + data["cells"]] == [True, False, True, False]
    assert [each["attention"] is None for each in data["cells"]] == [True, False]
    assert run(capsys, "--prompt", "a cat", *words)[0] == 0
    assert all(path.exists() for path in paths)


@pytest.mark.slow
def test_looking_on_changes_no_pixel(model, tmp_path, capsys):
    picture = noise(tmp_path / "a b.png")
    words = ["--prompt", "a cat", "--model", model, "--steps", 3, "--seed", 5]
    assert run(capsys, picture, *words, "--methods", "fam,hidiffusion+fam,direct", "-o", tmp_path / "out")[0] == 0
    for method in ("fam", "hidiffusion+fam", "direct"):
        with pytest.raises(SystemExit):
            cli.main([str(word) for word in ["upscale", picture, "-o", tmp_path / method, "--method", method, *words]])
        with (
            Image.open(tmp_path / method / "a b.png") as plain,
            Image.open(tmp_path / f"out/{method}-2x/a-b.png") as made,
        ):
            assert plain.tobytes() == made.tobytes()
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [cell["attention"] is not None for cell in found["cells"]] == [True, True, False]


@pytest.mark.slow
def test_maps_are_recorded_on_any_device_without_a_copy_in_a_step():
    import torch

    from fam_ext import hires
    from fam_ext.comparison.attention import Watch
    from fam_ext.hosts.diffusers.host import DiffusersHost

    def recorded(pipe, device):
        host, watch, counts = DiffusersHost(pipe, name="toy", device=device, dtype=torch.float32), Watch(), []
        sampling = hires.Sampling("a cat", steps=4)
        native = hires.generate_native(host, size=(64, 64), sampling=sampling)
        step = hires.Callbacks(lambda done, total: counts.append(dict(fake.counts)))
        hires.upscale(host, native, size=(96, 128), sampling=sampling, around=watch.around, callbacks=step)
        return watch.maps(), counts

    fake = FakeDevice()
    here, _ = recorded(toys.sd_pipeline(), torch.device("cpu"))
    with fake:
        there, counts = recorded(moved(toys.sd_pipeline()), DEVICE)
    assert (here.step, here.site) == (there.step, there.site)
    assert here.step == 3 and here.rho == pytest.approx(0.25, abs=0.01)  # of 0.75, 0.5 and a bit, 0.25, 0
    assert here.native.shape[1:] == (2, 2) and here.target.shape[1:] == here.modulated.shape[1:] == (3, 4)
    for name in ("native", "target", "modulated"):
        assert torch.allclose(getattr(here, name), getattr(there, name), atol=1e-4)
        assert torch.allclose(getattr(here, name).flatten(1).mean(1), torch.ones(64), atol=1e-4)
    later = [{name: after.get(name, 0) - before.get(name, 0) for name in after} for before, after in pairwise(counts)]
    assert all(each.get("to_device", 0) == 0 and each.get("sync", 0) <= 1 for each in later)


@pytest.mark.slow
@pytest.mark.parametrize("pipe", [toys.sd_pipeline, toys.sdxl_pipeline])
def test_every_method_passes_the_check_on_models_that_can_run_it(pipe):
    import torch

    from fam_ext.comparison.run import check
    from fam_ext.hosts.diffusers.host import DiffusersHost

    host = DiffusersHost(pipe(), name="toy", device=torch.device("cpu"), dtype=torch.float32)
    requests = [
        HiresRequest(size=size, method=method, steps=3) for method in METHODS for size in ((128, 128), (96, 64))
    ]
    check(host, requests, recorded=True)
    assert not host._hooks.steering.active


@pytest.mark.slow
def test_one_that_fails_is_told_and_tried_again(model, tmp_path, capsys, monkeypatch):
    from fam_ext import standalone
    from fam_ext.errors import OutOfMemoryError

    picture, render = noise(tmp_path / "a.png"), standalone.render_on

    def no_room(host, image, request, progress, **more):
        if request.method == "fam":
            raise OutOfMemoryError("the memory ran out; use a smaller size")
        return render(host, image, request, progress, **more)

    command = [picture, "--prompt", "a cat", "--model", model, "-o", tmp_path / "out", *COMMAND]
    with monkeypatch.context() as patched:
        patched.setattr(standalone, "render_on", no_room)
        code, said, err = run(capsys, *command)
    assert code == 1 and "a.png by fam at 2x failed: the memory ran out" in said and "1 could not be made" in err
    assert "the memory ran out" in (tmp_path / "out" / "compare.html").read_text()
    code, said, _ = run(capsys, *command)
    assert code == 0 and "by fam" in said and "by direct" not in said
    assert "the memory ran out" not in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.slow
def test_maps_that_fail_cost_no_picture(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fam_ext.comparison.run.atlas", lambda maps: 1 / 0)
    picture = noise(tmp_path / "a.png")
    code, said, _ = run(capsys, picture, "--prompt", "a cat", "--model", model, "-o", tmp_path / "out", *COMMAND)
    assert code == 0 and "by fam at 2x, its attention failed: ZeroDivisionError" in said
    assert '"attention": null' in (tmp_path / "out" / "results.json").read_text()


@pytest.mark.slow
def test_an_upscaler_makes_its_own_cells_others_alone(model, tmp_path, capsys, monkeypatch):
    import torch

    from fam_ext import standalone, upscalers

    network = upscalers.Upscaler("Twice", 2, lambda pixels: pixels.repeat(1, 1, 2, 2), torch.device("cpu"))
    monkeypatch.setattr(standalone.upscalers, "load", lambda file, **_: network)
    (file := tmp_path / "twice.pth").write_bytes(b"weights")
    words = ["--prompt", "a cat", "--steps", 1, "--device", "cpu", "--model", model, "-o", tmp_path / "out"]
    assert run(capsys, *words, "--methods", "resize,direct")[0] == 0
    words += ["--upscaler", file]
    code, said, _ = run(capsys, *words, "--methods", "resize,direct,upscaler")
    assert code == 0 and said.count("structure") == 1 and "no --upscaler" not in said
    found = json.loads((tmp_path / "out" / "results.json").read_text())["cells"]
    assert [cell["upscaler"] for cell in found] == [None, None, "Twice"]
    file.write_bytes(b"others")
    code, _, err = run(capsys, *words, "--methods", "resize,direct,upscaler")
    assert code == 1 and "a cat by upscaler at 2x made with other settings, model files" in err


@pytest.mark.slow
def test_a_native_picture_that_fails_costs_its_own_row_and_is_tried_again(model, tmp_path, capsys, monkeypatch):
    from fam_ext import hires

    generate = hires.generate_native

    def full(host, *, sampling, **more):
        if sampling.prompt == "a cat":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return generate(host, sampling=sampling, **more)

    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    out = tmp_path / "out"
    command = ["--prompts", tmp_path / "prompts.txt", "--model", model, "-o", out, *COMMAND]
    with monkeypatch.context() as patched:
        patched.setattr(hires, "generate_native", full)
        code, said, err = run(capsys, *command)
    sentence = "the memory ran out (CUDA out of memory)"
    assert code == 1 and f"a cat, native failed: {sentence}" in said and "3 could not be made" in err
    first = files(out)
    found = json.loads(first["results.json"])
    assert [sentence in (each["problem"] or "") for each in found["rows"] + found["cells"]] == [1, 0, 1, 1, 0, 0]
    assert first["compare.html"].decode().count(sentence) == 3
    code, said, _ = run(capsys, *command)
    again = files(out)
    assert code == 0 and said.count("structure") == 2 and sentence not in again["compare.html"].decode()
    assert {name for name in first if first[name] != again[name]} == {"results.json", "compare.html"}
    found = json.loads(again["results.json"])
    assert all(each["file"] and each["problem"] is None for each in found["rows"] + found["cells"])


@pytest.mark.slow
def test_a_given_picture_that_goes_meanwhile_costs_its_own_row(model, tmp_path, capsys, monkeypatch):
    first, second = noise(tmp_path / "a.png"), noise(tmp_path / "b.png")
    monkeypatch.setattr("fam_ext.comparison.run.check", lambda *_, **__: first.unlink())
    words = [first, second, "--scales", 2, "--model", model, "-o", tmp_path / "out", *COMMAND]
    code, said, _ = run(capsys, *words)
    assert code == 1 and said.count("structure") == 2 and "a.png, native failed: the file cannot be read (No su" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sampler", "PLMS"], "sampler 'PLMS' is refused"),
        (["--am-sites", "nowhere"], "nowhere"),
        (["--am-source", "recorded"], "no run of ours made these pictures"),
    ],
)
def test_what_the_model_or_the_sampler_cannot_do_is_said_before_anything_is_made(
    model, tmp_path, capsys, words, sentence
):
    picture = noise(tmp_path / "a.png")
    command = [picture, "--methods", "upscaler,direct,fam", "--model", model, "--steps", 2, "-o", tmp_path / "out"]
    code, _, err = run(capsys, *command, *words)
    assert code == 2 and sentence in err and err.count("\n") == 1
    assert not files(tmp_path / "out")
