"""Content negotiation (JSON:API 1.1, "Content Negotiation")."""

from collections.abc import Collection, Container

from werkzeug.datastructures import Headers
from werkzeug.http import parse_list_header, parse_options_header

from app.errors import MEDIA_TYPE, NotAcceptable, UnsupportedMediaType

NO_EXTENSIONS: frozenset[str] = frozenset()
KNOWN_PARAMETERS = frozenset({"ext", "profile", "q"})
"""Supported parameters of an Accept entry; `q` is its weight, not a media type parameter (RFC 9110, section 12.4.2)."""


JSON_TYPES = (MEDIA_TYPE, "application/json")
"""Media types that every route with a JSON body accepts; plain JSON is for manual requests."""


def require_media_type(headers: Headers, accepted: Collection[str]) -> str:
    """Return the media type of the body without parameters; raise UnsupportedMediaType unless it is accepted."""
    media_type = parse_options_header(headers.get("Content-Type", ""))[0].lower()
    if media_type not in accepted:
        raise _media_type_error(accepted)
    return media_type


def check_content_type(headers: Headers, extensions: frozenset[str] = NO_EXTENSIONS) -> None:
    """Raise UnsupportedMediaType if the body is not JSON, or its media type has unsupported parameters."""
    media_type, parameters = parse_options_header(headers.get("Content-Type", ""))
    accepted = [f'{MEDIA_TYPE}; ext="{extension}"' for extension in sorted(extensions)] or JSON_TYPES
    if media_type.lower() not in JSON_TYPES:
        raise _media_type_error(accepted)
    if media_type.lower() == MEDIA_TYPE and ("q" in parameters or not _is_supported(parameters, extensions)):
        raise _media_type_error(accepted, "The media type has parameters that are not supported. ")


def _media_type_error(accepted: Collection[str], problem: str = "") -> UnsupportedMediaType:
    """Return the error with the accepted media types, in its detail and in Accept (RFC 9110, section 15.5.16)."""
    *first, last = accepted
    named = f"{', '.join(first)} or {last}" if first else last
    accept = {"Accept": ", ".join(accepted)}
    return UnsupportedMediaType(f"{problem}This route accepts {named}.", header="Content-Type", headers=accept)


def check_accept(headers: Headers, extensions: frozenset[str] = NO_EXTENSIONS) -> None:
    """Raise NotAcceptable if all JSON:API entries of Accept have unsupported parameters."""
    entries = _parse_accept(headers)
    if entries and not any(_is_supported(parameters, extensions) for parameters in entries):
        raise NotAcceptable("All JSON:API entries of Accept have parameters that are not supported.", header="Accept")


def get_body_extensions(headers: Headers) -> frozenset[str]:
    """Return the extensions in the media type of the body."""
    return frozenset(parse_options_header(headers.get("Content-Type", ""))[1].get("ext", "").split())


def find_requested_profile(headers: Headers, spellings: Container[str]) -> str | None:
    """Return the first URI in Accept that is among `spellings`; entries with unknown parameters do not count."""
    supported = (parameters for parameters in _parse_accept(headers) if parameters.keys() <= KNOWN_PARAMETERS)
    named = (uri for parameters in supported for uri in parameters.get("profile", "").split())
    return next((uri for uri in named if uri in spellings), None)


def _parse_accept(headers: Headers) -> list[dict[str, str]]:
    entries = [parse_options_header(entry) for entry in parse_list_header(headers.get("Accept", ""))]
    return [parameters for media_type, parameters in entries if media_type.lower() == MEDIA_TYPE]


def _is_supported(parameters: dict[str, str], extensions: frozenset[str]) -> bool:
    """Return whether all parameters and extensions are supported; unknown profiles are ignored."""
    return parameters.keys() <= KNOWN_PARAMETERS and extensions.issuperset(parameters.get("ext", "").split())
