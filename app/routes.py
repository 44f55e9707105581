"""List of all routes with their methods and permissions."""

from typing import Any

from flask import Flask

HIDDEN_METHODS = frozenset({"HEAD", "OPTIONS"})


def list_routes(app: Flask) -> list[dict[str, Any]]:
    """Return `{"path": ..., "methods": [...], "permissions": {method: description}}` for each route, sorted by path.

    The description is "none" for a view without a permission.
    """
    routes: dict[str, dict[str, str]] = {}
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        descriptions = _describe_permissions(view)
        for method in sorted((rule.methods or set()) - HIDDEN_METHODS):
            routes.setdefault(rule.rule, {})[method] = descriptions.get(method, getattr(view, "permission", "none"))
    return [
        {"path": path, "methods": list(permissions), "permissions": permissions}
        for path, permissions in sorted(routes.items())
    ]


def _describe_permissions(view: Any) -> dict[str, str]:
    view_class = getattr(view, "view_class", None)
    by_method = getattr(view_class, "permissions_by_method", None)
    return by_method() if by_method is not None else {}
