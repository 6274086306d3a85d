"""multipart/form-data in memory: a few text fields and one file, as OpenAI's upload endpoints take them."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from autoglm_protocol.errors import InvalidRequestError

MAX_FORM_OVERHEAD_BYTES = 64 << 10
"""What a form may hold beside its file."""
_MAX_PARTS = 64
_IN_MEMORY = 1 << 40
"""Never to disk: the size of the body was bounded before."""


@dataclass(slots=True, kw_only=True)
class Form:
    texts: dict[str, str] = field(default_factory=dict[str, str])
    """The last one of each name."""
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])


def parse_form(body: bytes, content_type: str | None) -> Form:
    """Raises InvalidRequestError for what is no such form."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequestError("the request body must be multipart/form-data", code="invalid_multipart")
    form = Form()

    def on_field(part: Field) -> None:
        name = _text(part.field_name or b"", "a field's name")
        form.texts[name] = _text(part.value or b"", name)
        _bound(form)

    def on_file(part: File) -> None:
        part.file_object.seek(0)
        form.files[_text(part.field_name or b"", "a field's name")] = part.file_object.read()
        _bound(form)

    parser = FormParser(
        "multipart/form-data", on_field, on_file, boundary=boundary, config={"MAX_MEMORY_FILE_SIZE": _IN_MEMORY}
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise InvalidRequestError(f"the request body is no valid form: {error}", code="invalid_multipart") from error
    finally:
        parser.parser = None  # its callbacks refer to it: the file would stay until the garbage collector comes by
    return form


def _bound(form: Form) -> None:
    if len(form.texts) + len(form.files) > _MAX_PARTS:
        raise InvalidRequestError(f"the form has more than {_MAX_PARTS} fields", code="invalid_multipart")


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidRequestError(f"{what} is no valid UTF-8", code="invalid_multipart") from None
