"""The routes /fam-hires/v1/*: schema, presets, and folder jobs, behind the WebUI's --api-auth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from secrets import compare_digest
from typing import Any

from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fam_ext import __version__
from fam_ext.core.config import FamConfig
from fam_ext.errors import BusyError, ConfigError, FamError, UsageError
from fam_ext.jobs import report
from fam_ext.jobs.batches import Batches
from fam_ext.options import resolve
from fam_ext.options.field import API, SCRIPT, options_of, pick, said
from fam_ext.options.job import Job
from fam_ext.options.parts import NUMBER_RULES, RULES, WORDS
from fam_ext.options.presets import BUILTIN, DEFAULT, PresetStore
from fam_ext.options.renderer import WEBUI, RendererChoice
from fam_ext.options.request import OWN
from fam_ext.options.resolve import RANDOM_SEED, options_at
from fam_ext.options.table import json_schema

PREFIX = "/fam-hires/v1"
DEFAULTS = BUILTIN[DEFAULT]
"""What every door takes for a field that is left out."""
_REPORTS = {"json": ("report.json", "application/json"), "csv": ("report.csv", "text/csv")}


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of POST /jobs: a folder job's fields, and `fam` as the hires script takes it. FAM's fields
    may stand in the job as well."""
    schema = json_schema(spec for spec in options_at(API) if spec not in options_of(FamConfig))
    for name, value in DEFAULTS.settings.items():
        schema["properties"][name]["default"] = value
    schema["properties"]["seed"]["minimum"] = RANDOM_SEED
    schema["properties"]["rules"] = {
        "type": "object",
        "title": "Rules",
        "description": "How the picture's own counts, by setting.",
        "properties": {
            name: {"type": "string", "enum": list(RULES if name in WORDS else NUMBER_RULES)}
            for name in (*OWN, "config")
        },
        "additionalProperties": False,
    }
    schema["properties"]["fam"] = fam_schema()
    schema["properties"] |= fam_schema()["properties"]
    schema["required"] = ["input"]
    return schema


def fam_schema() -> dict[str, Any]:
    """Return the JSON Schema of the one dict that the hires script takes in `alwayson_scripts`."""
    schema = json_schema(options_at(SCRIPT))
    for name, value in DEFAULTS.config.to_dict().items():
        schema["properties"][name]["default"] = list(value) if isinstance(value, tuple) else value
    schema["properties"]["cutoff"]["description"] += (
        " Without cutoff_reference in the same object it is a share of the native side, 0 to 1."
    )
    return schema


def job_words(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the words of POST /jobs: its fields, and those of its `fam`. Raises a `FamError` where one is in both."""
    words = dict(body)
    fam = words.pop("fam", {})
    if not isinstance(fam, Mapping):
        raise UsageError(f"fam is {said(fam)}; choose an object of named fields")
    for name in fam:
        if name in words:
            raise ConfigError(f"{said(name)} is given twice; give it in the job or in fam")
    pick(words, [*(spec.name for spec in options_at(API)), "rules"], "a folder job")
    pick(fam, [spec.name for spec in options_at(SCRIPT)], "FAM Hires")
    return {**words, **fam}


def add_routes(
    app: FastAPI,
    *,
    store: Callable[[], PresetStore],
    batches: Batches,
    check: Callable[[Job], Job],
    default_output: Callable[[str], str],
    credentials: str | None,
) -> None:
    """Add the routes to the WebUI's app. `credentials` is --api-auth ("user:password,..."), None = open."""
    secured = [Depends(_authentication(credentials))] if credentials else []

    def route(method: str, path: str, function: Callable[..., Any], **more: Any) -> None:  # noqa: ANN401
        needs = [*secured, *([Depends(_only_json)] if method == "POST" else [])]
        app.add_api_route(PREFIX + path, function, methods=[method], dependencies=needs, tags=["FAM Hires"], **more)

    def get_schema() -> dict[str, Any]:
        """The named fields: of the hires script's dict, and of a folder job."""
        return {"version": __version__, "fam": fam_schema(), "job": job_schema()}

    def get_presets() -> dict[str, Any]:
        """All presets by name, those that ship first."""
        presets = store()
        return {"presets": [presets.get(name).to_json() for name in presets.names()]}

    def post_job(body: dict[str, Any] = Body(...)) -> dict[str, Any]:  # noqa: B008
        """Start a folder job; answers with its id. One runs at a time."""
        try:
            words = job_words(body)
            if not words.get("output"):
                source = words.get("input", "")
                words["output"] = default_output(source if isinstance(source, str) else "")
            options = resolve.job(words, preset_of=store().get, renderer=RendererChoice(WEBUI))
            if words.get("enabled") is not False:  # what is off may keep its dials
                resolve.refuse_unread(words, [resolve.method_of(options)])
            resolve.refuse_unasked(words, options)
            return batches.start(check(options)).to_json()
        except FamError as error:
            raise _unanswerable(error) from None
        except (OSError, ValueError) as error:  # a path that no system takes
            raise _unanswerable(UsageError(f"the folders cannot be used ({error}); check input and output")) from None

    def get_job(job_id: str) -> dict[str, Any]:
        """A job's state, counts, progress, time left and last files."""
        try:
            return batches.get(job_id).to_json()
        except FamError as error:
            raise HTTPException(404, detail=str(error)) from None

    def cancel_job(job_id: str, after_this_file: bool = False) -> dict[str, Any]:
        """Stop a job: now (the picture under way is dropped), or after the file under way."""
        try:
            batch = batches.get(job_id)
        except FamError as error:
            raise HTTPException(404, detail=str(error)) from None
        if after_this_file:
            batch.control.stop_after_this()
        elif not batch.over:
            batch.control.cancel()
        return batch.to_json()

    def get_report(job_id: str, kind: str = "json") -> Any:  # noqa: ANN401
        """A finished job's report, one line a file: `kind` is json or csv."""
        from fastapi.responses import FileResponse

        try:
            batch = batches.get(job_id)
        except FamError as error:
            raise HTTPException(404, detail=str(error)) from None
        if kind not in _REPORTS:
            raise HTTPException(422, detail=f"kind is {kind!r}; choose json or csv")
        name, media_type = _REPORTS[kind]
        path = report.place(Path(batch.options.places.output), name)
        if not batch.over or not path.is_file():
            raise HTTPException(409, detail=f"job {job_id} has no report yet; ask again when it has ended")
        return FileResponse(path, media_type=media_type)

    body_schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": job_schema()}}}}
    route("GET", "/schema", get_schema)
    route("GET", "/presets", get_presets)
    route("POST", "/jobs", post_job, openapi_extra=body_schema)
    route("GET", "/jobs/{job_id}", get_job)
    route("POST", "/jobs/{job_id}/cancel", cancel_job)
    route("GET", "/jobs/{job_id}/report", get_report)


def _unanswerable(error: FamError) -> HTTPException:
    # what was given may hold what no answer can: lone surrogates
    text = str(error).encode("utf-8", "backslashreplace").decode()
    return HTTPException(409 if isinstance(error, BusyError) else 422, detail=text)


def _only_json(request: Request) -> None:
    """Refuse what a form of another site could send: a job is JSON, and says so."""
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given != "application/json":
        raise HTTPException(415, detail=f"Content-Type is {given!r}; send application/json")


def _authentication(credentials: str) -> Callable[..., bool]:
    known = dict(pair.split(":", 1) for pair in credentials.split(","))

    def check(given: HTTPBasicCredentials = Depends(HTTPBasic())) -> bool:  # noqa: B008
        password = known.get(given.username)
        if password is not None and compare_digest(given.password.encode(), password.encode()):
            return True
        raise HTTPException(
            status_code=401, detail="Incorrect username or password", headers={"WWW-Authenticate": "Basic"}
        )

    return check
