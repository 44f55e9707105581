"""Names on the wire: dashed out; dashed, underscored, plural and camelCase in."""


def dasherize(text: str) -> str:
    """`starts_at` as `starts-at`."""
    return text.replace("_", "-")


def camelize(text: str) -> str:
    """`faq-type` as `faqType`."""
    head, *rest = text.split("-")
    return head + "".join(part.capitalize() for part in rest)


def list_type_aliases(singular: str, plural: str) -> frozenset[str]:
    """Every way a client may spell a type: `faq-type`, `faq-types`, `faqType`, `faqTypes`, `faq_type`, `faq_types`."""
    return frozenset(
        spelled for name in (singular, plural) for spelled in (name, camelize(name), name.replace("-", "_"))
    )
