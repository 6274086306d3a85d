"""The OpenAPI document as one plain page: no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Json = Mapping[str, Any]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
summary { cursor: pointer; padding: .4rem 0; border-top: 1px solid #ddd; }
code { background: #f3f3f3; padding: .1rem .3rem; border-radius: 3px; }
table { border-collapse: collapse; margin: .5rem 0 1rem; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #eee; }
.method { display: inline-block; width: 3.5rem; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  body { background: #1b1b1b; color: #ddd; } code { background: #333; } td, th, summary { border-color: #444; }
}
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"


def docs_html(document: Json) -> str:
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    operations = "".join(
        _operation(path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p>The same as <a href="/openapi.json">openapi.json</a>.</p>'
        f"{operations}</body></html>"
    )


def _operation(path: str, method: str, operation: Json) -> str:
    content: Json = operation.get("requestBody", {}).get("content", {})
    bodies = "".join(_body(media_type, part["schema"]) for media_type, part in content.items())
    answers = ", ".join(f"<code>{escape(status)}</code>" for status in operation["responses"])
    return (
        f'<details><summary><span class="method">{escape(method.upper())}</span> <code>{escape(path)}</code> '
        f"{escape(operation['summary'])}</summary>{bodies}<p>Answers: {answers}</p></details>"
    )


def _body(media_type: str, schema: Json) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code>{' (required)' if name in required else ''}</td>"
        f"<td>{escape(' '.join(_words(field)))}</td></tr>"
        for name, field in schema["properties"].items()
    )
    return f"<p>Body: <code>{escape(media_type)}</code></p><table>{rows}</table>"


def _words(field: Json) -> Iterator[str]:
    """A schema in a few words."""
    if "$ref" in field:
        yield str(field["$ref"]).rpartition("/")[2]
    if "oneOf" in field:
        yield " or ".join(" ".join(_words(part)) for part in field["oneOf"])
    if "type" in field:
        kind = field["type"]
        yield " or ".join(kind) if isinstance(kind, list) else str(kind)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    if "items" in field:
        yield f"of {' '.join(_words(field['items']))}"
    if "enum" in field:
        yield "(" + ", ".join(map(str, field["enum"])) + ")"
    bounds = [f"{sign} {field[key]}" for key, sign in _BOUNDS.items() if key in field]
    if bounds:
        yield ", ".join(bounds)
    if "default" in field:
        yield f"(default {field['default']})"
    if "description" in field:
        yield f"- {field['description']}"


_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "maxItems": "at most"}
