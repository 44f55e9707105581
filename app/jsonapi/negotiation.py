"""Content negotiation (JSON:API 1.1, "Content Negotiation")."""

from collections.abc import Collection, Container

from werkzeug.datastructures import Headers
from werkzeug.http import parse_list_header, parse_options_header

from app.errors import MEDIA_TYPE, NotAcceptable, UnsupportedMediaType

NO_EXTENSIONS: frozenset[str] = frozenset()
KNOWN_PARAMETERS = frozenset({"ext", "profile", "q"})
"""Parameters of an entry; `q` weighs it and is none of the media type (RFC 9110, 12.4.2)."""


JSON_TYPES = (MEDIA_TYPE, "application/json")
"""The media types that every route with a JSON body takes; plain JSON is for people."""


def require_media_type(headers: Headers, taken: Collection[str]) -> str:
    """Return the media type of the body, without parameters; raise 415 unless the route takes it."""
    media_type = parse_options_header(headers.get("Content-Type", ""))[0].lower()
    if media_type not in taken:
        raise _media_type_error(taken)
    return media_type


def check_content_type(headers: Headers, extensions: frozenset[str] = NO_EXTENSIONS) -> None:
    """Raise 415 for a body that is no JSON, or whose media type has parameters that are unknown here."""
    media_type, parameters = parse_options_header(headers.get("Content-Type", ""))
    taken = [f'{MEDIA_TYPE}; ext="{extension}"' for extension in sorted(extensions)] or JSON_TYPES
    if media_type.lower() not in JSON_TYPES:
        raise _media_type_error(taken)
    if media_type.lower() == MEDIA_TYPE and ("q" in parameters or not _is_supported(parameters, extensions)):
        raise _media_type_error(taken, "The media type has parameters that are not supported. ")


def _media_type_error(taken: Collection[str], problem: str = "") -> UnsupportedMediaType:
    """The 415 that names the media types of a route, for people and in Accept (RFC 9110, 15.5.16)."""
    *first, last = taken
    named = f"{', '.join(first)} or {last}" if first else last
    accept = {"Accept": ", ".join(taken)}
    return UnsupportedMediaType(f"{problem}This route takes {named}.", header="Content-Type", headers=accept)


def check_accept(headers: Headers, extensions: frozenset[str] = NO_EXTENSIONS) -> None:
    """406 when every JSON:API entry of Accept carries parameters we do not know."""
    ours = _parse_accept(headers)
    if ours and not any(_is_supported(parameters, extensions) for parameters in ours):
        raise NotAcceptable("Every JSON:API entry has parameters that are not supported.", header="Accept")


def get_body_extensions(headers: Headers) -> frozenset[str]:
    """The extensions the body says it uses."""
    return frozenset(parse_options_header(headers.get("Content-Type", ""))[1].get("ext", "").split())


def find_requested_profile(headers: Headers, spellings: Container[str]) -> str | None:
    """Return the first URI in Accept that is among `spellings`; entries with unknown parameters do not count."""
    understood = (parameters for parameters in _parse_accept(headers) if parameters.keys() <= KNOWN_PARAMETERS)
    named = (uri for parameters in understood for uri in parameters.get("profile", "").split())
    return next((uri for uri in named if uri in spellings), None)


def _parse_accept(headers: Headers) -> list[dict[str, str]]:
    entries = [parse_options_header(entry) for entry in parse_list_header(headers.get("Accept", ""))]
    return [parameters for media_type, parameters in entries if media_type.lower() == MEDIA_TYPE]


def _is_supported(parameters: dict[str, str], extensions: frozenset[str]) -> bool:
    """Whether we know these parameters and extensions; unknown profiles are ignored."""
    return parameters.keys() <= KNOWN_PARAMETERS and extensions.issuperset(parameters.get("ext", "").split())
