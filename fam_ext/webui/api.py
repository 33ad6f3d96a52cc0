"""The routes /fam-hires/v1/*: schema, presets, and folder jobs, behind the WebUI's --api-auth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from secrets import compare_digest
from typing import Any

from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from fam_ext import __version__
from fam_ext.core.config import FamConfig
from fam_ext.errors import FamError, UsageError
from fam_ext.jobs import report
from fam_ext.jobs.plan import PlanOptions
from fam_ext.options.presets import BUILTIN, DEFAULT, PresetStore
from fam_ext.options.table import CONFIG_FIELDS, json_schema
from fam_ext.ui.folder import folder_options, folder_schema
from fam_ext.webui.arguments import named
from fam_ext.webui.batches import Batches

PREFIX = "/fam-hires/v1"
FAM_DEFAULTS = BUILTIN[DEFAULT].config.to_dict()
"""What the API takes for a field that is left out, without a preset."""
_REPORTS = {"json": ("report.json", "application/json"), "csv": ("report.csv", "text/csv")}


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema of POST /jobs: a folder job's fields, and `fam` as the hires script takes it."""
    schema = folder_schema()
    schema["properties"]["fam"] = fam_schema()
    return schema


def fam_schema() -> dict[str, Any]:
    """Return the JSON Schema of the one dict that the hires script takes in `alwayson_scripts`."""
    schema = json_schema(CONFIG_FIELDS)
    for name, value in FAM_DEFAULTS.items():
        schema["properties"][name]["default"] = list(value) if isinstance(value, tuple) else value
    schema["properties"]["cutoff"]["description"] += (
        " Without cutoff_reference in the same object it is a share of the native side, 0 to 1."
    )
    schema["properties"] = {
        "enabled": {"type": "boolean", "default": True, "description": "false leaves FAM off."},
        "preset": {"type": "string", "description": "A preset's name: the values of the fields that are left out."},
        **schema["properties"],
    }
    return schema


def add_routes(
    app: FastAPI,
    *,
    store: Callable[[], PresetStore],
    batches: Batches,
    check: Callable[[PlanOptions], PlanOptions],
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
        with_fam = dict(body)
        try:
            fam = with_fam.pop("fam", {})
            if not isinstance(fam, dict):
                raise UsageError(f"fam is {fam!r}; choose an object of named fields")
            fields, enabled = named(fam, store=store())
            source = with_fam.get("input", "")
            output = default_output(source if isinstance(source, str) else "")
            options = folder_options(with_fam, FamConfig.from_dict(fields), default_output=output)
            if not enabled:
                options = replace(options, method="direct-from-native")
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
        path = report.place(Path(batch.options.output), name)
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
    return HTTPException(409 if "is running" in text else 422, detail=text)


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
