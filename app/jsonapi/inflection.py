"""Spellings of names: responses use dashed names; requests may use underscored, plural and camelCase ones too."""


def dasherize(text: str) -> str:
    """Return a name with dashes: `starts_at` becomes `starts-at`."""
    return text.replace("_", "-")


def camelize(text: str) -> str:
    """Return a dashed name in camelCase: `faq-type` becomes `faqType`."""
    head, *rest = text.split("-")
    return head + "".join(part.capitalize() for part in rest)


def list_type_aliases(singular: str, plural: str) -> frozenset[str]:
    """Return the accepted spellings of a type: dashed, camelCase and underscored, singular and plural."""
    return frozenset(
        spelled for name in (singular, plural) for spelled in (name, camelize(name), name.replace("-", "_"))
    )
