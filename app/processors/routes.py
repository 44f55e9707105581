"""Routes that processors call."""

from flask_rest_jsonapi_next import Api

from app.processors.callbacks import handle_callback
from app.processors.document_view import serve_job_document


def route(api: Api) -> None:
    """Register the callback and document routes of a job."""
    api.blueprint.add_url_rule("/jobs/<id>/callback", "job_callback", handle_callback, methods=["POST"])
    api.blueprint.add_url_rule("/jobs/<id>/documents/<uid>", "job_document", serve_job_document, methods=["GET"])
