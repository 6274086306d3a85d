from __future__ import annotations

import pytest

from autoglm_protocol.errors import ERROR_CLASSES, AutoglmError, InvalidRequestError, from_wire_text, wire_text


@pytest.mark.parametrize("error_class", ERROR_CLASSES)
def test_every_error_survives_the_wire(error_class: type[AutoglmError]) -> None:
    error = error_class("the image is 9 px wide [at most 8]", code="image_too_large", param="messages[0].content[1]")
    back = from_wire_text(wire_text(error))
    assert type(back) is error_class
    assert (back.message, back.code, back.param) == (error.message, error.code, error.param)


def test_text_of_others_is_no_error_of_ours() -> None:
    assert from_wire_text("unexpected shape for input 'mel' [expected 2 dims]") is None


def test_an_error_without_field_has_none() -> None:
    back = from_wire_text(wire_text(InvalidRequestError("no")))
    assert back is not None
    assert back.param is None


def test_every_class_of_the_tree_can_cross_the_wire() -> None:
    def below(cls: type[AutoglmError]) -> set[type[AutoglmError]]:
        return {cls, *(found for child in cls.__subclasses__() for found in below(child))}

    ours = {error_class for error_class in below(AutoglmError) if error_class.__module__ == AutoglmError.__module__}
    assert ours - {AutoglmError} == set(ERROR_CLASSES)
