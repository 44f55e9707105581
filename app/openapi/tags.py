"""Tags, which group operations, and names in words."""

from app.jsonapi.resource_type import TYPES
from app.openapi.json_schema import Json

OTHER_TAGS = {
    "auth": "Log in, renew tokens, change and reset passwords, verify e-mail addresses.",
    "description": "The description of this API.",
    "health": "Probes for load balancers and monitoring.",
    "images": "Upload images, and make smaller ones.",
    "job-kinds": "The kinds of jobs that this server can run.",
    "operations": "Several writes in one request, all or none of them.",
    "processors": "Requests that external processors make while they work on a job.",
}
"""Tags of operations that are not about a resource type."""


def build_tags() -> list[Json]:
    """Return every tag with its description, by name."""
    described = {type_.plural: type_.description for type_ in TYPES.values()} | OTHER_TAGS
    return [{"name": name, "description": text} for name, text in sorted(described.items())]


def humanize_name(key: str) -> str:
    """Return a dashed name of a relationship or of resources in words: `faq-types` are `FAQ types`."""
    special = {"retry-of": "retried predecessor", "requested-by": "requester"}
    return special.get(key) or " ".join({"faq": "FAQ", "faqs": "FAQs"}.get(word, word) for word in key.split("-"))
