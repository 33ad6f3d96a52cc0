"""What the accordion will do beside the page's other settings, or what stops it, before Generate. No gradio."""

from __future__ import annotations

from dataclasses import dataclass

from fam_ext.ui.tables import sentence_html

BEFORE = {
    False: "Makes the second pass of Hires. fix with FAM. Size, upscaler and steps stay where they are, in Hires. fix.",
    True: "Takes the input picture to a larger size with FAM: choose a size larger than the picture.",
}
"""What it is for, while it is off."""


@dataclass(frozen=True)
class Hires:
    """What Hires. fix says. Sizes are (height, width)."""

    on: bool
    upscaler: str
    native: tuple[int, int]
    target: tuple[int, int]


def hires_target(native: tuple[int, int], *, scale: float, width: int, height: int) -> tuple[int, int]:
    """Return the (height, width) of Hires. fix: by `scale` where no side is asked for, else as those sides say."""
    if not width and not height:
        return int(native[0] * scale), int(native[1] * scale)
    if not height:
        return width * native[0] // native[1], width
    if not width:
        return height, height * native[1] // native[0]
    return height, width


def foretold(hires: Hires | None, *, start: float, own_upsampling: bool, problem: str = "") -> str:
    """Return the sentence as HTML; `hires` is None in img2img. `problem` is why FAM cannot run, as an error says it."""
    if problem:
        return sentence_html(problem, kind="error")
    if hires is None:
        return sentence_html(f"Makes this picture larger with FAM. Denoising strength is not used: {_starts(start)}.")
    sizes = f"{hires.native[1]} x {hires.native[0]} to {hires.target[1]} x {hires.target[0]} px"
    if not hires.on:
        return sentence_html("Hires. fix is off, so nothing would be enlarged: switch it on, above.", kind="error")
    if hires.target[0] * hires.target[1] <= hires.native[0] * hires.native[1]:
        return sentence_html(f"Hires. fix asks for {sizes}: choose a larger size there.", kind="error")
    said = f"Takes over the pass of Hires. fix, {sizes}. Its denoising strength is not used: {_starts(start)}."
    if own_upsampling:
        said += " Its upscaler is not used: Upsampling, under More dials, is."
    elif hires.upscaler == "None":
        said += " Its upscaler is None, so Lanczos enlarges the picture first."
    elif hires.upscaler.startswith("Latent") and start < 1:
        said += f" {hires.upscaler} makes the picture soft: a pixel upscaler, such as Lanczos or an ESRGAN, keeps more."
    return sentence_html(said)


def _starts(start: float) -> str:
    return "it starts from noise" if start == 1 else f"it starts at {start:g} of the noise"
