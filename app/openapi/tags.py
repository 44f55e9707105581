"""Tags, which group operations, and the nouns that summaries call resources by."""

from dataclasses import dataclass

from app.jsonapi.resource_type import TYPES
from app.openapi.json_schema import Json


@dataclass(frozen=True)
class Noun:
    """How summaries call a resource: `an event`, `events`; the description of its tag says what it is."""

    one: str
    many: str
    description: str

    @property
    def bare(self) -> str:
        """Return the singular without its article."""
        return self.one.partition(" ")[2]


NOUNS = {
    "document-set": Noun("a document set", "document sets", "Sets of events, FAQs and uploads, for treatments."),
    "event": Noun("an event", "events", "Events, the people who organize them, and what belongs to them."),
    "event-image": Noun("an event image", "event images", "Images in the gallery of an event."),
    "faq": Noun("a FAQ", "FAQs", "Frequently asked questions of an event and their answers."),
    "faq-type": Noun("a FAQ type", "FAQ types", "Categories of the frequently asked questions of an event."),
    "hook": Noun("a hook", "hooks", "URLs that start a job when another system calls them."),
    "job": Noun("a job", "jobs", "Long-running work: start it, watch it, cancel it, retry it."),
    "job-artifact": Noun("a job artifact", "job artifacts", "Files that jobs produced."),
    "job-event": Noun("a job event", "job events", "Progress reports and state changes of jobs."),
    "region": Noun("a region", "regions", "Regions of images that treatments found."),
    "similarity": Noun("a similarity", "similarities", "Pairs of similar documents that treatments found."),
    "treatment": Noun("a treatment", "treatments", "Requests to have an external processor work on a document set."),
    "upload": Noun("an upload", "uploads", "Images that users uploaded."),
    "user": Noun("a user", "users", "Accounts and profiles."),
}

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


def tags() -> list[Json]:
    """Return every tag with its description, by name; raises LookupError for a resource type without a noun."""
    described = {type_.plural: noun(name).description for name, type_ in TYPES.items()} | OTHER_TAGS
    return [{"name": name, "description": text} for name, text in sorted(described.items())]


def noun(type_name: str) -> Noun:
    """Return the noun of a resource type."""
    try:
        return NOUNS[type_name]
    except KeyError:
        raise LookupError(f"the resource type {type_name} has no noun in app/openapi/tags.py") from None


def relation_words(key: str) -> str:
    """Return the words for a relationship by its dashed name: `faq-types` are `FAQ types`."""
    special = {"retry-of": "retried predecessor", "requested-by": "requester"}
    return special.get(key) or " ".join({"faq": "FAQ", "faqs": "FAQs"}.get(word, word) for word in key.split("-"))
