"""/v1/event-images: images in galleries; only imports create them."""

from flask_rest_jsonapi_next import Api

from app.gallery.models import EventImage
from app.gallery.permissions import PERMISSIONS
from app.gallery.schemas import EventImageSchema
from app.jsonapi.relationship_views import register_relationship_routes
from app.jsonapi.resource_type import ResourceType
from app.jsonapi.resources import ResourceDetail, ResourceList
from app.uploads.resources import StoredFileData

EVENT_IMAGE = ResourceType(
    schema=EventImageSchema,
    model=EventImage,
    plural="event-images",
    noun="an event image",
    description="Images in the gallery of an event.",
    permissions=PERMISSIONS,
)


class EventImageList(ResourceList):
    """All images that the current user can see."""

    data_layer = {"class": StoredFileData, "type": EVENT_IMAGE}
    methods = {"GET"}


class EventImageDetail(ResourceDetail):
    """One image; a PATCH can only restore it from the trash, while its file exists."""

    data_layer = {"class": StoredFileData, "type": EVENT_IMAGE}


def route(api: Api) -> None:
    """Register the routes of gallery images."""
    api.route(EventImageList, "event_image_list", "/event-images")
    api.route(EventImageDetail, "event_image_detail", "/event-images/<id>")
    register_relationship_routes(api, EVENT_IMAGE, StoredFileData)
