"""What the API answers to a job that cannot be started."""

from types import SimpleNamespace

import pytest

from fam_ext.errors import BusyError
from fam_ext.options.presets import PresetStore


class Answer(Exception):  # noqa: N818
    def __init__(self, status, detail):
        super().__init__(status, detail)


def test_only_a_job_that_runs_is_a_conflict(webui, tmp_path, monkeypatch):
    """Whatever words a user's own name puts into the sentence."""

    def start(options):
        raise BusyError("job 1 is running; wait for its end, or stop it")

    routes, api = {}, webui("api")
    monkeypatch.setattr(api, "HTTPException", Answer)
    api.add_routes(
        SimpleNamespace(add_api_route=lambda path, function, **more: routes.update({path: function})),
        store=lambda: PresetStore(tmp_path),
        batches=SimpleNamespace(start=start),
        check=lambda job: job,
        default_output=lambda source: str(tmp_path / "out"),
        credentials=None,
    )
    for more, status, words in (
        ({}, 409, "job 1 is running"),
        ({"preset": "it is running"}, 422, "it is running"),
        ({"scale": "is running"}, 422, "is running"),
        ({"method": "hidiffusion", "fam": {"start": 0.5}}, 422, "start is given, and hidiffusion never reads it"),
        ({"preset": "paper", "upscaler": "R-ESRGAN 4x+"}, 422, "upscaler is given, and upsample is latent_bicubic"),
        ({"preset": "paper", "upscaler": None, "fam": {"enabled": False, "cutoff": 0.5}}, 409, "job 1 is running"),
    ):
        with pytest.raises(Answer) as answer:
            routes[f"{api.PREFIX}/jobs"]({"input": str(tmp_path), **more})
        assert answer.value.args[0] == status and words in answer.value.args[1]


def test_the_schema_of_a_job_takes_what_a_job_takes(webui):
    fields = webui("api").job_schema()["properties"]
    rules = fields["rules"]["properties"]
    assert fields["seed"]["minimum"] == -1 and rules["seed"]["enum"] == ["take", "override"]
    assert rules["prompt"]["enum"][2:] == ["prefix", "suffix", "replace"]
    assert "config" in rules and fields["rules"]["additionalProperties"] is False
