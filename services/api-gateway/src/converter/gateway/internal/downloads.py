"""The files of a job by their names."""

from __future__ import annotations

from litestar import Response, get
from litestar.enums import MediaType

from converter.contracts.job import Artifact, JobRecord
from converter.gateway.endpoints.artifacts import artifact_answer
from converter.gateway.endpoints.downloads import DOWNLOAD
from converter.gateway.endpoints.jobs import ApiRequest, own_job, shown_job
from converter.gateway.gateway import Gateway
from converter.gateway.http.errors import Refusal
from converter.gateway.internal.operators import files_of


@get(
    "/jobs/{job_id:str}/download/{filename:str}",
    opt={"requires": None, "operation": DOWNLOAD},
    media_type=MediaType.JSON,
)
async def download_file(request: ApiRequest, gateway: Gateway, job_id: str, filename: str) -> Response[bytes]:
    """An artifact, its statement, a report or a log, or the range that is asked for; the job names them in `files`."""
    file = _named(await shown_job(gateway, request.user, job_id), filename)
    return artifact_answer(request, gateway.store, file, lambda: own_job(gateway, request.user, job_id))


def _named(record: JobRecord, filename: str) -> Artifact:
    for _, _, file in files_of(record):
        if file.filename == filename:
            return file
    raise Refusal("not_found", "The job has no file of this name.", details={"hint": "Its `files` names what it has."})
