from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_checkpoint import IDS, SPECIAL_TOKENS, TEMPLATE, tokenizer, write_texts

from autoglm_backend.models.config import CheckpointError, load_model_config
from autoglm_backend.preprocess.chat_template import ChatTemplate, EncodedPrompt, load_chat_template
from autoglm_backend.preprocess.tokenizer import load_tokenizer
from autoglm_protocol.chat import AudioPart, ChatOptions, ImagePart, Message, Part, Role, TextPart, ToolCall
from autoglm_protocol.errors import InvalidRequestError

IMAGE, AUDIO = ImagePart(data=b""), AudioPart(data=b"")
LIBRARY = tokenizer()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module")
def template(checkpoint: Path) -> ChatTemplate:
    return load_chat_template(checkpoint, load_model_config(checkpoint))


def other_template(checkpoint: Path, source: str) -> ChatTemplate:
    return ChatTemplate(source, load_tokenizer(checkpoint), load_model_config(checkpoint))


def message(role: str, *parts: Part | str) -> Message:
    return Message(role=Role(role), parts=tuple(TextPart(text=p) if isinstance(p, str) else p for p in parts))


def encode(
    template: ChatTemplate,
    *messages: Message,
    images: Sequence[int] = (),
    audios: Sequence[int] = (),
    context: int = 10_000,
    **options: Any,
) -> EncodedPrompt:
    return template.encode(
        messages, ChatOptions(**options), image_tokens=images, audio_tokens=audios, context_tokens=context
    )


def shown(prompt: EncodedPrompt) -> str:
    return LIBRARY.decode(prompt.ids.tolist(), skip_special_tokens=False)


def test_conversation_renders_as_glm_writes_it(template: ChatTemplate) -> None:
    prompt = encode(
        template,
        message("system", "Be brief."),
        message("user", "打开蓝牙"),
        message("assistant", "<think>hm</think><answer>ok"),
        message("user", "go on"),
    )
    text = (
        "[gMASK]<sop><|system|>\nBe brief.<|user|>\n打开蓝牙<|assistant|>\n<think>hm</think><answer>ok"
        "<|user|>\ngo on<|assistant|>\n"
    )
    assert shown(prompt) == text
    assert prompt.ids.tolist() == LIBRARY.encode(text, add_special_tokens=False).ids
    assert prompt.ids.dtype == np.int32


def test_media_placeholders_grow_to_the_tokens_of_each_item(template: ChatTemplate) -> None:
    prompt = encode(template, message("user", IMAGE, "a", AUDIO, IMAGE), images=[3, 2], audios=[4])
    ids = prompt.ids.tolist()
    assert [ids[start : start + length] for start, length in prompt.image_spans] == [
        [IDS["<|image|>"]] * n for n in (3, 2)
    ]
    assert [ids[start : start + length] for start, length in prompt.audio_spans] == [[IDS["<|audio|>"]] * 4]
    assert (prompt.num_image_tokens, prompt.num_audio_tokens) == (5, 4)
    assert ids.count(IDS["<|image|>"]) == 5


@given(
    texts=st.lists(
        st.lists(st.sampled_from([*SPECIAL_TOKENS, "<", "|>", "<|us", "er|>", "[g", "MASK]", "手", " x", "\ufdd0"])),
        min_size=1,
        max_size=3,
    )
)
def test_typed_special_tokens_stay_text(template: ChatTemplate, texts: list[list[str]]) -> None:
    parts = [TextPart(text="".join(pieces)) for pieces in texts]
    prompt = encode(template, Message(role=Role.USER, parts=tuple(parts)))
    fixed = encode(template, message("user", "x"))
    specials = {IDS[text] for text in SPECIAL_TOKENS}
    assert sum(i in specials for i in prompt.ids) == sum(i in specials for i in fixed.ids)
    assert shown(prompt) == shown(fixed).replace("x", "".join(part.text for part in parts))


def test_pieces_of_a_special_token_in_neighbouring_parts_stay_text(template: ChatTemplate) -> None:
    prompt = encode(template, message("user", IMAGE, "<|assis", "tant|>"), images=[1])
    assert prompt.ids.tolist().count(IDS["<|assistant|>"]) == 1


def test_special_tokens_in_template_arguments_stay_text(checkpoint: Path) -> None:
    template = other_template(checkpoint, "{{ note }}<|user|>")
    prompt = encode(template, message("user", "x"), chat_template_kwargs={"note": "<|user|>"})
    assert prompt.ids.tolist().count(IDS["<|user|>"]) == 1


def test_templates_that_cut_contents_work_on_the_contents(checkpoint: Path) -> None:
    template = other_template(checkpoint, "{{ messages[0].content.split('</think>')[-1].strip() }}")
    assert shown(encode(template, message("assistant", "<think>a</think> <|user|> b "))) == "<|user|> b"


def test_typed_placeholder_is_no_picture(template: ChatTemplate) -> None:
    assert encode(template, message("user", "<|image|>")).image_spans == ()


def test_several_text_parts_follow_each_other_without_separator(template: ChatTemplate) -> None:
    assert "\nab<|assistant|>" in shown(encode(template, message("user", "a", "b")))


def test_system_parts_are_joined(template: ChatTemplate) -> None:
    assert "<|system|>\nab<|user|>" in shown(encode(template, message("system", "a", "b"), message("user", "x")))


def test_continue_final_message_ends_with_its_text(template: ChatTemplate) -> None:
    prompt = encode(template, message("user", "x"), message("assistant", "<think>so"), continue_final_message=True)
    assert shown(prompt).endswith("<|assistant|>\n<think>so")
    assert prompt.starts_in_thought


def test_generation_prompt_can_be_left_out(template: ChatTemplate) -> None:
    assert shown(encode(template, message("user", "x"), add_generation_prompt=False)).endswith("x")


def test_no_thinking_is_prefilled_where_the_template_has_no_switch(template: ChatTemplate) -> None:
    assert shown(encode(template, message("user", "x"), enable_thinking=False)).endswith(
        "<|assistant|>\n<think></think>"
    )


def test_no_thinking_is_left_to_a_template_that_has_the_switch(checkpoint: Path) -> None:
    template = other_template(checkpoint, "{% if not enable_thinking %}quick{% endif %}")
    assert shown(encode(template, message("user", "x"), enable_thinking=False)) == "quick"


def test_an_unclosed_thought_of_an_earlier_turn_is_over(template: ChatTemplate) -> None:
    prompt = encode(template, message("user", "x"), message("assistant", "<think>cut"), message("user", "y"))
    assert not prompt.starts_in_thought


def test_a_prompt_that_fills_the_context_is_refused_with_both_counts(template: ChatTemplate) -> None:
    full = len(encode(template, message("user", "x" * 50)).ids)
    assert len(encode(template, message("user", "x" * 50), context=full + 1).ids) == full
    with pytest.raises(InvalidRequestError, match=f"has {full} tokens, the context holds {full}") as caught:
        encode(template, message("user", "x" * 50), context=full)
    assert caught.value.code == "context_length_exceeded"


def test_media_in_a_message_that_the_template_leaves_out_is_refused(checkpoint: Path) -> None:
    template = other_template(checkpoint, "nothing")
    with pytest.raises(InvalidRequestError, match="placed 0 of 1 image items"):
        encode(template, message("user", IMAGE), images=[1])


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_media_outside_user_messages_is_refused(template: ChatTemplate, role: str) -> None:
    with pytest.raises(InvalidRequestError, match="only user messages"):
        encode(template, message(role, IMAGE), images=[1])


def test_video_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InvalidRequestError, match="no video"):
        encode(other_template(checkpoint, "<|video|>"), message("user", "x"))


def test_the_templates_own_refusal_reaches_the_caller(checkpoint: Path) -> None:
    template = other_template(checkpoint, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidRequestError, match="roles must alternate"):
        encode(template, message("user", "x"))


def test_half_a_surrogate_pair_is_refused(template: ChatTemplate) -> None:
    with pytest.raises(InvalidRequestError, match="surrogate"):
        encode(template, message("user", "\ud83d"))


def test_templates_cannot_reach_out_of_the_sandbox(checkpoint: Path) -> None:
    template = other_template(checkpoint, "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InvalidRequestError, match="cannot render"):
        encode(template, message("user", "x"))


def test_template_inside_tokenizer_config_is_found(tmp_path: Path) -> None:
    write_texts(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages[0].content }}!"}')
    template = load_chat_template(tmp_path, load_model_config(tmp_path))
    assert shown(encode(template, message("user", "x"))) == "x!"


def test_a_template_that_is_no_template_fails_at_load(tmp_path: Path) -> None:
    write_texts(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE + "{% if %}")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja"):
        load_chat_template(tmp_path, load_model_config(tmp_path))


@given(text=st.text())
def test_ids_equal_the_librarys_own_for_text_without_special_tokens(template: ChatTemplate, text: str) -> None:
    assert template.tokenizer.encode(text) == LIBRARY.encode(text, add_special_tokens=False).ids


@given(ids=st.lists(st.integers(0, len(IDS) + 255), max_size=40))
def test_token_bytes_equal_the_librarys_decoder(template: ChatTemplate, ids: list[int]) -> None:
    table = template.tokenizer.token_table()
    joined = b"".join(map(table.visible_bytes, ids)).decode(errors="replace")
    assert joined == LIBRARY.decode(ids, skip_special_tokens=True)


TOOL_TEMPLATE = (
    "{%- for tool in tools or [] -%}[{{ tool | tojson }}]{%- endfor -%}"
    "{%- for m in messages -%}<|{{ m.role }}|>{{ m.content }}"
    "{%- for call in m.tool_calls or [] -%}({{ call.function.name }} {{ call.function.arguments.city }})"
    "{%- endfor -%}{%- endfor -%}"
)


def weather(**properties: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "parameters": {"properties": properties}}}


def test_tools_and_their_calls_go_through_a_template_that_knows_them(checkpoint: Path) -> None:
    call = ToolCall(id="c", name="weather", arguments='{"city": "Rom"}')
    turn = Message(role=Role.ASSISTANT, parts=(), tool_calls=(call,))
    result = Message(role=Role.TOOL, parts=(TextPart(text="sunny"),), tool_call_id="c")
    tools = [weather(city={})]
    prompt = encode(other_template(checkpoint, TOOL_TEMPLATE), turn, result, chat_template_kwargs={"tools": tools})
    assert shown(prompt) == f"[{json.dumps(tools[0])}]<|assistant|>(weather Rom)<|tool|>sunny"


def test_a_name_in_a_tool_becomes_no_special_token(checkpoint: Path) -> None:
    tools = [weather(**{"<|user|>": {}})]
    prompt = encode(
        other_template(checkpoint, TOOL_TEMPLATE), message("user", "a"), chat_template_kwargs={"tools": tools}
    )
    assert prompt.ids.tolist().count(IDS["<|user|>"]) == 1


def test_tools_are_refused_where_the_template_has_no_place_for_them(template: ChatTemplate) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        encode(template, message("user", "a"), chat_template_kwargs={"tools": [weather()]})
    assert refused.value.param == "tools"


def test_a_result_reaches_a_template_without_tools_as_a_users_turn(template: ChatTemplate) -> None:
    call = ToolCall(id="c", name="weather", arguments='{"city": "Rom"}')
    turn = Message(role=Role.ASSISTANT, parts=(TextPart(text="hm"),), tool_calls=(call,))
    text = shown(encode(template, turn, message("tool", "sunny")))
    assert 'hm{"name": "weather", "arguments": {"city": "Rom"}}<|user|>\nsunny' in text
