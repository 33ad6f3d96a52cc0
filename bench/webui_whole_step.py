"""What FM and AM add to one step of a hires pass in a whole running WebUI, plain and guided passes taking turns:

    python bench/webui_whole_step.py [--sides 256 512] [--scale 2] [--steps 4] [--repeats 5] [--layouts sd sdxl]

Needs a WebUI as tests/webui does (FAM_WEBUI_DIR). The embedded model in both layouts; Euler, one thread. It prints the
median, least and greatest of the pass's own processor time a step (other programs make wall time meaningless), the
ratio to plain, and the network's calls by the size of their latent.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fam_ext.demo.export import export_checkpoint
from tests.webui.server import Server, find_webui

PROBE = Path(__file__).parents[1] / "tests" / "webui" / "probe"
KINDS = {"plain": None, "FM": {"preset": "paper", "am": False}, "FM + AM": {"preset": "paper"}}
MODELS = {"sd": "fluent-tiny.safetensors", "sdxl": "fluent-tiny-xl.safetensors"}


def passes(server, options, model, side):
    """Return [{kind: what the probe says of its pass}]: the first, which warms up, is left out."""
    fields = {"width": side, "height": side, "hr_scale": options.scale, "hr_second_pass_steps": options.steps}
    fields |= {"steps": 1, "sampler_name": "Euler", "scheduler": "Automatic", "negative_prompt": "blurry"}
    fields |= {"denoising_strength": 1.0, "override_settings": {"sd_model_checkpoint": model}}
    turns = []
    for _ in range(options.repeats + 1):
        turn = {}
        for kind, fam in KINDS.items():
            answer = server.generate(fam, **fields)
            assert answer.status == 200, answer.error
            turn[kind] = server.ask("/probe/pass")[1]
        turns.append(turn)
    return turns[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="pixels of the native picture")
    parser.add_argument("--scale", type=float, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layouts", nargs="+", choices=MODELS, default=list(MODELS))
    options = parser.parse_args()
    found = find_webui()
    if isinstance(found, str):
        sys.exit(found)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for layout in MODELS:
            export_checkpoint(place / "models", layout=layout)
        server = Server(*found, place / "data", place / "models", log=place / "log", extension=PROBE)
        try:
            for layout in options.layouts:
                for side in options.sides:
                    show(layout, side, passes(server, options, MODELS[layout], side), options.steps)
        finally:
            server.stop()


def show(layout, side, turns, steps):
    plain = None
    for kind in KINDS:
        seconds = sorted(turn[kind]["cpu"] / steps for turn in turns)
        median = statistics.median(seconds)
        plain = plain or median
        calls = ", ".join(f"{count} at {size}" for size, count in turns[0][kind]["calls"].items())
        spread = f"{1000 * median:.0f} ms ({1000 * seconds[0]:.0f} to {1000 * seconds[-1]:.0f}, n = {len(seconds)})"
        print(f"{layout}, {side} px, {kind}: {spread}, {median / plain:.2f} of plain; calls: {calls}", flush=True)


if __name__ == "__main__":
    main()
