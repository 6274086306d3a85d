"""The OpenAPI document of the HTTP API, served at /openapi.json."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from autoglm_gateway.openai_content import ROLES
from autoglm_gateway.openai_fields import EFFORTS
from autoglm_protocol.profile import MAX_SECONDS, MAX_STEPS
from autoglm_protocol.sampling import MAX_CHOICES, MAX_STOP_STRINGS, MAX_TOP_LOGPROBS

Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": "boolean"}
_WHOLE: Json = {"type": "integer"}
_OBJECT: Json = {"type": "object"}

SETTINGS: Json = {
    "model": {**_TEXT, "description": "one of GET /v1/models"},
    "stream": _FLAG,
    "stream_options": {
        "type": "object",
        "properties": {"include_usage": _FLAG, "continuous_usage_stats": _FLAG},
        "description": "only with stream: true",
    },
    "temperature": {"type": "number", "minimum": 0, "maximum": 2, "default": 1},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 1},
    "top_k": {**_WHOLE, "minimum": -1, "default": 0},
    "min_p": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
    "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2, "default": 0},
    "repetition_penalty": {"type": "number", "exclusiveMinimum": 0, "maximum": 2, "default": 1},
    "logit_bias": {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
    "seed": _WHOLE,
    "max_tokens": {**_WHOLE, "minimum": 1},
    "max_completion_tokens": {**_WHOLE, "minimum": 1, "description": "wins over max_tokens"},
    "min_tokens": {**_WHOLE, "minimum": 0, "default": 0},
    "stop": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": MAX_STOP_STRINGS}]},
    "stop_token_ids": {"type": "array", "items": _WHOLE},
    "ignore_eos": _FLAG,
    "include_stop_str_in_output": _FLAG,
    "allowed_token_ids": {"type": "array", "items": _WHOLE},
    "bad_words": {"type": "array", "items": _TEXT},
    "logprobs": _FLAG,
    "top_logprobs": {**_WHOLE, "minimum": 0, "maximum": MAX_TOP_LOGPROBS},
    "n": {**_WHOLE, "minimum": 1, "maximum": MAX_CHOICES, "default": 1},
    "depth": {"oneOf": [_WHOLE, _TEXT], "description": '"auto", "full" or a number of layers'},
    "exit": {"type": "string", "enum": ["lossless", "certified", "fixed"]},
    "attention_window": {**_WHOLE, "minimum": 1, "description": "tokens that each token reads of those before it"},
    "return_token_layers": {**_FLAG, "default": False, "description": "token_layers in every choice"},
    "enable_thinking": {**_FLAG, "default": True},
    "reasoning_effort": {"type": "string", "enum": [*EFFORTS], "description": '"none" turns thinking off'},
    "return_reasoning": {
        **_FLAG,
        "default": False,
        "description": "split <think>...</think> into reasoning_content; refused where answers have one text",
    },
    "include_reasoning": {**_FLAG, "description": "another word for return_reasoning"},
    "max_reasoning_tokens": {**_WHOLE, "minimum": 0},
    "thinking_token_budget": {**_WHOLE, "minimum": 0, "description": "another word for max_reasoning_tokens"},
    "max_reasoning_steps": {**_WHOLE, "minimum": 0},
    "chat_template_kwargs": _OBJECT,
    "continue_final_message": _FLAG,
    "add_generation_prompt": {**_FLAG, "default": True},
    "priority": {**_WHOLE, "default": 0, "description": "lower runs sooner"},
    "response_format": {**_OBJECT, "description": "text, json_object, json_schema or autoglm_action"},
    "structured_outputs": {**_OBJECT, "description": "one of json, regex, choice, grammar and json_object"},
    "guided_json": {"oneOf": [_OBJECT, _TEXT, _FLAG]},
    "guided_regex": _TEXT,
    "guided_choice": {"type": "array", "items": _TEXT, "minItems": 1},
    "guided_grammar": {**_TEXT, "description": "Lark or GBNF"},
    "grammar": {**_OBJECT, "description": "kind and value, as the decoder takes it"},
    "max_pixels": {**_WHOLE, "minimum": 1, "description": "of each picture once scaled; the server bounds it too"},
    "min_pixels": {**_WHOLE, "minimum": 1},
    "mm_processor_kwargs": {**_OBJECT, "description": "max_pixels and min_pixels, as vLLM has them"},
}
"""Fields that every generating endpoint understands; a test holds them against openai_fields.py."""

TOOLS: Json = {
    "tools": {
        "type": "array",
        "items": {"type": "object", "required": ["type"], "properties": {"type": _TEXT, "function": _OBJECT}},
        "minItems": 1,
        "description": 'functions, or {"type": "phone_actions"} for every action of the phone',
    },
    "tool_choice": {"oneOf": [_TEXT, _OBJECT], "description": "none, auto, required, or a function's name"},
    "parallel_tool_calls": {**_FLAG, "default": True},
}


def document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {"title": "AutoGLM-Phone gateway", "version": version("autoglm-triton")},
        "security": [{}, {"key": []}],
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _error(), "Message": _message(), "Item": _item()},
        },
        "paths": {
            "/v1/chat/completions": _generates(
                "Chat",
                ["messages"],
                {"messages": {"type": "array", "items": _ref("Message"), "minItems": 1}, **TOOLS},
            ),
            "/v1/completions": _generates("Text completion", ["prompt"], {"prompt": _TEXT}),
            "/v1/multimodal/completions": _generates(
                "Completion with media in one plain body",
                [],
                {
                    "prompt": _TEXT,
                    "system": _TEXT,
                    "image": {**_TEXT, "description": "base64 or URL"},
                    "images": {"type": "array", "items": _TEXT},
                    "audio": {**_TEXT, "description": "base64 or URL"},
                    "audio_format": {"type": "string", "enum": ["wav", "mp3"]},
                },
            ),
            "/v1/responses": _generates(
                "Response",
                ["input"],
                {
                    "input": {
                        "oneOf": [
                            _TEXT,
                            {"type": "array", "items": {"anyOf": [_ref("Message"), _ref("Item")]}, "minItems": 1},
                        ]
                    },
                    "instructions": _TEXT,
                    "include": {"type": "array", "items": _TEXT, "description": "message.output_text.logprobs"},
                    "max_output_tokens": {**_WHOLE, "minimum": 1},
                    "reasoning": _OBJECT,
                    "text": {**_OBJECT, "description": "format: text, json_object or json_schema"},
                    **_flat_tools(),
                },
            ),
            "/v1/audio/transcriptions": _transcribes(),
            "/tokenize": _asks(
                "Token ids of a text or of a rendered conversation",
                [],
                {
                    "prompt": {**_TEXT, "description": "a text alone; or else messages"},
                    "messages": {"type": "array", "items": _ref("Message"), "minItems": 1},
                    "add_special_tokens": {**_FLAG, "description": "default: true of a text, false of messages"},
                    "return_token_strs": {**_FLAG, "default": False},
                    "add_generation_prompt": {**_FLAG, "default": True},
                    "continue_final_message": _FLAG,
                },
            ),
            "/detokenize": _asks("Text of token ids", ["tokens"], {"tokens": {"type": "array", "items": _WHOLE}}),
            "/admin/profile": _profiles(),
            "/v1/phone_actions": _reads("The phone's actions as function tools"),
            "/v1/models": _reads("The served names"),
            "/v1/models/{name}": _reads("One served name", parameter="name"),
            "/health": _reads("Whether a request would be served", 503),
            "/health/ready": _reads("Whether a request would be served", 503),
            "/health/live": _reads("Whether the process lives"),
            "/metrics": _reads("Prometheus metrics", media_type="text/plain"),
            "/version": _reads("The gateway's version"),
            "/openapi.json": _reads("This document"),
            "/docs": _reads("This document as a page", media_type="text/html"),
        },
    }


def _asks(summary: str, required: list[str], properties: Json) -> Json:
    """JSON in and out, without generation; `model` may be left out."""
    body: Json = {"type": "object", "required": required, "properties": {"model": SETTINGS["model"], **properties}}
    return _posts(summary, {"application/json": {"schema": body}}, {"application/json": {"schema": _OBJECT}})


def _transcribes() -> Json:
    properties: Json = {
        "model": SETTINGS["model"],
        "file": {"type": "string", "contentMediaType": "application/octet-stream", "description": "WAV or MP3"},
        "response_format": {"type": "string", "enum": ["json", "text"], "default": "json"},
        "language": {**_TEXT, "description": "a hint that is not needed"},
        "temperature": {"type": "number", "enum": [0]},
        "stream": _FLAG,
    }
    body: Json = {"type": "object", "required": ["model", "file"], "properties": properties}
    answers: Json = {
        "application/json": {"schema": _OBJECT},
        "text/plain": {"schema": _TEXT},
        "text/event-stream": {"schema": _TEXT},
    }
    return _posts("Sound to text", {"multipart/form-data": {"schema": body}}, answers)


def _profiles() -> Json:
    bounds: Json = {
        "seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS},
        "steps": {**_WHOLE, "minimum": 1, "maximum": MAX_STEPS},
    }
    body: Json = {"type": "object", "properties": bounds, "additionalProperties": False}
    operation = _posts(
        "Profile the decoder; from the server's own machine, or with a key",
        {"application/json": {"schema": body}},
        {"application/json": {"schema": {**_OBJECT, "description": "a Chrome trace"}}},
    )
    operation["post"]["requestBody"]["required"] = False
    operation["post"]["responses"] |= {"403": _refusal(), "409": _refusal()}
    return operation


def _generates(summary: str, required: list[str], properties: Json) -> Json:
    body: Json = {"type": "object", "required": ["model", *required], "properties": {**SETTINGS, **properties}}
    answers: Json = {"application/json": {"schema": _OBJECT}, "text/event-stream": {"schema": _TEXT}}
    return _posts(summary, {"application/json": {"schema": body}}, answers)


def _posts(summary: str, content: Json, answer: Json) -> Json:
    answers: Json = {"200": {"description": "the answer, whole or as server-sent events", "content": answer}}
    for status in (400, 401, 404, 408, 413, 429, 500, 503):
        answers[str(status)] = _refusal()
    return {"post": {"summary": summary, "requestBody": {"required": True, "content": content}, "responses": answers}}


def _reads(summary: str, *statuses: int, parameter: str | None = None, media_type: str = "application/json") -> Json:
    schema = _OBJECT if media_type == "application/json" else _TEXT
    answers: Json = {"200": {"description": summary, "content": {media_type: {"schema": schema}}}}
    operation: Json = {"summary": summary, "responses": answers}
    if parameter is not None:
        operation["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": _TEXT}]
        statuses = (*statuses, 404)
    for status in (*statuses, 401):
        answers[str(status)] = _refusal()
    return {"get": operation}


def _refusal() -> Json:
    return {"description": "refused", "content": {"application/json": {"schema": _ref("Error")}}}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _error() -> Json:
    nullable: Json = {"type": ["string", "null"]}
    fields: Json = {"message": _TEXT, "type": _TEXT, "param": nullable, "code": nullable}
    error = {"type": "object", "required": [*fields], "properties": fields}
    return {"type": "object", "required": ["error"], "properties": {"error": error}}


def _flat_tools() -> Json:
    """The tools of /v1/responses: a function's name stands beside its type."""
    fields: Json = {"type": _TEXT, "name": _TEXT, "description": _TEXT, "parameters": _OBJECT}
    tool: Json = {"type": "object", "required": ["type"], "properties": fields}
    return {**TOOLS, "tools": {"type": "array", "items": tool, "description": TOOLS["tools"]["description"]}}


def _item() -> Json:
    """What an input of /v1/responses may hold beside messages."""
    call: Json = {"call_id": _TEXT, "name": _TEXT, "arguments": _TEXT}
    output: Json = {"call_id": _TEXT, "output": {"oneOf": [_TEXT, {"type": "array", "items": _OBJECT}]}}
    kinds = (("function_call", ["call_id", "name"], call), ("function_call_output", [*output], output))
    return {
        "oneOf": [
            {"type": "object", "required": ["type", *required], "properties": {"type": {"const": kind}, **fields}}
            for kind, required, fields in kinds
        ]
    }


def _message() -> Json:
    part: Json = {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "enum": ["text", "image_url", "input_audio", "audio_url"]},
            "text": _TEXT,
            "image_url": {"type": "object", "required": ["url"], "properties": {"url": _TEXT}},
            "audio_url": {"type": "object", "required": ["url"], "properties": {"url": _TEXT}},
            "input_audio": {
                "type": "object",
                "required": ["data"],
                "properties": {"data": _TEXT, "format": {"type": "string", "enum": ["wav", "mp3"]}},
            },
        },
    }
    return {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "enum": [*ROLES]},
            "content": {"oneOf": [_TEXT, {"type": "array", "items": part}]},
        },
    }
