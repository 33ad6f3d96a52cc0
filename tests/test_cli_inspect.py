"""`fam-hires inspect` and the dry run say the same, and name program and notes."""

import json

from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from fam_ext.cli import app
from fam_ext.metadata.pictures import decode

TEXT = (
    "a barn\nNegative prompt: fog\nSteps: 60, Sampler: LCM, Schedule type: Beta, CFG scale: 0, Seed: -1, Version: f2.0"
)


def test_inspect_and_the_plan_agree(tmp_path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", TEXT)
    Image.new("RGB", (64, 64)).save(source / "a.png", pnginfo=info)
    Image.new("RGB", (64, 64)).save(source / "b.jfif", "JPEG")
    (source / "._a.png").write_bytes(b"macOS")
    arguments = ["upscale", str(source), "-o", str(tmp_path / "out"), "--dry-run"]
    planned = CliRunner().invoke(app, [*arguments, "--plan-format", "json"])
    rows = {row["source"]: row for row in map(json.loads, planned.stdout.splitlines())}
    assert set(rows) == {"a.png", "b.jfif"}
    row = rows["a.png"]
    assert (row["program"], row["sampler"], row["schedule"], row["steps"]) == ("Forge", "LCM", "Uniform", 50)
    assert (row["cfg_scale"], row["prompt"], row["error"]) == (1.0, "a barn", None)
    for word in ("Beta", "50 steps", "CFG scale 0", "seed -1"):
        assert word in row["notes"]
    inspected = json.loads(CliRunner().invoke(app, ["inspect", str(source / "a.png"), "--json"]).stdout)
    assert inspected["notes"] == row["notes"].split("; ")
    for name, value in inspected["runs"].items():
        assert row[name] == value
    text = CliRunner().invoke(app, ["inspect", str(source / "a.png")]).stdout
    assert "Forge in PNG parameters" in text and "would run:" in text
    assert CliRunner().invoke(app, ["inspect", str(source / "._a.png")]).exit_code == 1
    assert "1 of 2 carry no prompt" in CliRunner().invoke(app, arguments).stdout
    assert not (tmp_path / "out").exists()


def test_the_first_frame_of_an_animated_file_is_taken_when_asked_for(tmp_path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue", "green")]
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.webp"):
        frames[0].save(tmp_path / "in" / name, save_all=True, append_images=frames[1:], lossless=True)
        data = (tmp_path / "in" / name).read_bytes()
        assert decode(data, first_frame=True).image.getpixel((5, 5))[0] > 250
    arguments = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--dry-run"]
    refused = CliRunner().invoke(app, arguments).stdout
    assert "2 failed" in refused and "holds 3 frames" in refused and "--first-frame" in refused
    assert "2 pending" in CliRunner().invoke(app, [*arguments, "--first-frame"]).stdout
