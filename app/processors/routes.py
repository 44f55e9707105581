"""The two URLs that processors call."""

from flask_rest_jsonapi_next import Api

from app.processors.callbacks import receive
from app.processors.serving import serve


def route(api: Api) -> None:
    """Both lie below a job."""
    api.blueprint.add_url_rule("/jobs/<id>/callback", "job_callback", receive, methods=["POST"])
    api.blueprint.add_url_rule("/jobs/<id>/documents/<uid>", "job_document", serve, methods=["GET"])
