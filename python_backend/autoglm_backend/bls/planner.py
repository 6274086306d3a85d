"""Which parts of the graph a request runs: a pure function of request, checkpoint and the deployment's profile."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm_backend.models.attention_window import load_window_offer
from autoglm_backend.models.config import CheckpointError
from autoglm_backend.profiles import Profile
from autoglm_protocol.chat import ChatRequest, Role
from autoglm_protocol.errors import InvalidRequestError
from autoglm_protocol.plan import DepthBy, ExecutionPlan, ExitMode, check_attention_window, parse_depth

TOKENS_PER_REASONING_STEP = 32
"""A step is about one sentence of thought; `max_reasoning_steps` counts in it, the decoder in tokens."""
DIRECT_TEXT_CHARACTERS = 120
DIRECT_TEXT = "direct_text"

_IDENTITY = re.compile(r"who are you|what are you|what(?:'s| is) your name|你是谁|你叫什么|你是什么", re.IGNORECASE)
_QUESTION = re.compile(
    r"[?？]|\b(?:who|what|when|where|why|how|which|whose)\b|[吗呢谁]|什么|怎么|怎样|为何|哪|几[个点]|多少",
    re.IGNORECASE,
)
_YES = ("true", "1", "yes", "on", "")
_NO = ("false", "0", "no", "off")
_REASONS = {
    ExitMode.LOSSLESS: "lossless: shallow layers guess, all layers decide",
    ExitMode.CERTIFIED: "certified: each token leaves when its gate is sure",
}
_SCREEN_INFO_TITLE = "** Screen Info **"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    num_layers: int
    exits: tuple[int, ...] = ()
    """Depths below num_layers that have an exit head."""
    auto_depths: Mapping[str, int] = field(default_factory=dict[str, int])
    """Depth by class of request, where the checkpoint's makers have measured that it is enough."""
    has_certificate: bool = False
    """Gates and certificate are there; whether they fit weights and precision is for the decoder to say."""
    has_router: bool = False
    """A router is there; only the certificate beside it says that it fits weights and precision."""
    has_speech: bool = False
    least_window: int | None = None
    """The narrowest attention window that the checkpoint bears; None where it was trained for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFacts:
    num_images: int
    num_audios: int
    last_user_text: str
    depth: int | str | None = None
    exit: str | None = None
    attention_window: int | None = None
    max_reasoning_tokens: int | None = None
    max_reasoning_steps: int | None = None

    @classmethod
    def of(cls, request: ChatRequest) -> RequestFacts:
        user_texts = [message.text for message in request.messages if message.role is Role.USER]
        options = request.options
        return cls(
            num_images=len(request.images),
            num_audios=len(request.audios),
            last_user_text=user_texts[-1] if user_texts else "",
            depth=options.depth,
            exit=options.exit,
            attention_window=options.attention_window,
            max_reasoning_tokens=options.max_reasoning_tokens,
            max_reasoning_steps=options.max_reasoning_steps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What the operator chose: defaults for requests that name no depth or exit, and whether there is a choice."""

    dynamic_graph: bool = True
    default_depth: str = "auto"
    default_exit: str | None = None

    @classmethod
    def of(cls, profile: Profile, environment: Mapping[str, str]) -> Deployment:
        """ENABLE_DYNAMIC_GRAPH, on unless it says otherwise. Raises ValueError for a value that is neither."""
        value = environment.get("ENABLE_DYNAMIC_GRAPH", "true").strip().lower()
        if value not in (*_YES, *_NO):
            raise ValueError(f"ENABLE_DYNAMIC_GRAPH is {value!r}, must be True or False")
        return cls(dynamic_graph=value in _YES, default_depth=profile.default_depth, default_exit=profile.default_exit)

    def check(self, checkpoint: CheckpointFacts) -> None:
        """Raises ValueError when this checkpoint cannot do what requests get by default."""
        try:
            plan(RequestFacts(num_images=0, num_audios=0, last_user_text=""), checkpoint, self)
        except InvalidRequestError as error:
            raise ValueError(f"the profile's default_{error.param} cannot be: {error.message}") from None


def plan(request: RequestFacts, checkpoint: CheckpointFacts, deployment: Deployment) -> ExecutionPlan:
    """The plan of one request. Raises InvalidRequestError naming the field.

    Without words about it, a checkpoint with exits answers losslessly. A depth in numbers means exactly that depth.
    Attention is narrowed only when the request asks for it: no checkpoint is the same under a window.
    """
    if request.num_audios and not checkpoint.has_speech:
        raise InvalidRequestError("this checkpoint has no speech encoder, so it takes no audio", param="messages")
    mode, wanted = _mode_and_depth(request, checkpoint, deployment)
    check_attention_window(request.attention_window, checkpoint.least_window, mode)
    if not deployment.dynamic_graph:
        mode = ExitMode.FIXED
        depth, by, reason = checkpoint.num_layers, DepthBy.MODE, "dynamic graph off"
    elif mode is not ExitMode.FIXED:
        depth, by, reason = checkpoint.num_layers, DepthBy.MODE, _REASONS[mode]
    elif wanted is not None:
        is_asked = request.depth is not None
        depth, by = wanted, DepthBy.REQUEST if is_asked else DepthBy.DEPLOYMENT
        reason = "requested" if is_asked else "this deployment's default"
    else:
        depth, by, reason = _auto_depth(request, checkpoint)
    return ExecutionPlan(
        enabled=deployment.dynamic_graph,
        run_vision=request.num_images > 0 or not deployment.dynamic_graph,
        run_speech=checkpoint.has_speech and (request.num_audios > 0 or not deployment.dynamic_graph),
        num_layers=checkpoint.num_layers,
        depth=depth,
        exit_mode=mode,
        reason=reason,
        depth_asked=deployment.default_depth if request.depth is None else request.depth,
        depth_by=by,
        reasoning_budget_tokens=_reasoning_budget(request),
        attention_window=request.attention_window if deployment.dynamic_graph else None,
    )


def is_direct_command(text: str) -> bool:
    """Whether a text is a short command, or asks who the assistant is; the JSON that phone agents add is ignored."""
    command = without_screen_info(text)
    if not command or len(command) > DIRECT_TEXT_CHARACTERS:
        return False
    return _IDENTITY.search(command) is not None or _QUESTION.search(command) is None


def without_screen_info(text: str) -> str:
    """A user's text without what phone agents append: the title line and the JSON object with the current app."""
    text = text.strip()
    start = text.rfind('{"current_app"')
    if start >= 0 and text.endswith("}") and _is_json(text[start:]):
        text = text[:start].rstrip()
    return text.removesuffix(_SCREEN_INFO_TITLE).rstrip()


def load_checkpoint_facts(checkpoint_dir: Path, num_layers: int) -> CheckpointFacts:
    """Read the sidecars' descriptions. Raises CheckpointError naming the file."""
    path = checkpoint_dir / "exits" / "exits.json"
    has_speech = (checkpoint_dir / "speech" / "speech_config.json").exists()
    offer = load_window_offer(checkpoint_dir)
    least_window = None if offer is None else offer.least
    if not path.exists():
        return CheckpointFacts(num_layers=num_layers, has_speech=has_speech, least_window=least_window)
    try:
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        exits = tuple(sorted(int(depth) for depth in raw["depths"]))
        auto = {str(name): int(depth) for name, depth in raw.get("auto", {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not a description of exits ({error!r})") from error
    for name, depth in auto.items():
        if depth not in (*exits, num_layers):
            raise CheckpointError(f"{path}: auto.{name} is {depth}, which is no exit")
    has_router = path.with_name("router.json").exists()
    certificate = [path.with_name(name).exists() for name in ("certificate.json", "gates.json")]
    return CheckpointFacts(
        num_layers=num_layers,
        exits=exits,
        auto_depths=auto,
        has_certificate=all(certificate),
        has_router=has_router and all(certificate),
        has_speech=has_speech,
        least_window=least_window,
    )


def _auto_depth(request: RequestFacts, checkpoint: CheckpointFacts) -> tuple[int, DepthBy, str]:
    """Rules first; where they find nothing, the router is asked by the decoder, which has the states it looks at."""
    shallow = checkpoint.auto_depths.get(DIRECT_TEXT)
    if shallow is None:
        reason = "auto: this checkpoint names no shallower depth"
    elif request.num_images or request.num_audios:
        reason = "auto: media"
    elif not is_direct_command(request.last_user_text):
        reason = "auto: no short direct command"
    else:
        return shallow, DepthBy.RULE, "auto: short direct command"
    by = DepthBy.PROBE if checkpoint.has_router else DepthBy.RULE
    return checkpoint.num_layers, by, f"{reason}, the router decides" if checkpoint.has_router else reason


def _mode_and_depth(
    request: RequestFacts, checkpoint: CheckpointFacts, deployment: Deployment
) -> tuple[ExitMode, int | None]:
    """The exit mode, and the depth in layers (None is auto). A depth in numbers is fixed unless an exit is named."""
    asked = None if request.exit is None else _known_mode(request.exit)
    value = request.depth
    if value is None and asked in (None, ExitMode.FIXED):
        value = deployment.default_depth
    depth = parse_depth(value, checkpoint.exits, checkpoint.num_layers)
    is_number = value not in (None, "auto", "full")
    if asked is not None:
        mode = asked
    elif is_number and (request.depth is not None or deployment.default_exit is None):
        mode = ExitMode.FIXED
    elif deployment.default_exit is not None:
        mode = _known_mode(deployment.default_exit)
    else:
        mode = ExitMode.LOSSLESS if checkpoint.exits else ExitMode.FIXED
    _check_mode(mode, depth, checkpoint)
    return mode, depth


def _known_mode(value: str) -> ExitMode:
    try:
        return ExitMode(value)
    except ValueError:
        modes = ", ".join(f'"{mode.value}"' for mode in ExitMode)
        raise InvalidRequestError(f"exit is {value!r}, must be one of {modes}", param="exit") from None


def _check_mode(mode: ExitMode, depth: int | None, checkpoint: CheckpointFacts) -> None:
    if mode is ExitMode.FIXED:
        return
    if not checkpoint.exits:
        raise InvalidRequestError(
            f'exit "{mode.value}" needs exit heads, and this checkpoint has none (exits/exits.json)', param="exit"
        )
    if mode is ExitMode.CERTIFIED and not checkpoint.has_certificate:
        raise InvalidRequestError(
            'exit "certified" needs a certificate, and this checkpoint has none (exits/certificate.json and '
            "exits/gates.json; `autoglm calibrate` makes them)",
            param="exit",
        )
    if depth not in (None, checkpoint.num_layers):
        raise InvalidRequestError(
            f'exit "{mode.value}" answers as full depth does, so depth cannot be {depth}', param="exit"
        )


def _reasoning_budget(request: RequestFacts) -> int | None:
    limits: list[int] = []
    for name, value, tokens in (
        ("max_reasoning_tokens", request.max_reasoning_tokens, 1),
        ("max_reasoning_steps", request.max_reasoning_steps, TOKENS_PER_REASONING_STEP),
    ):
        if value is None:
            continue
        # raw Triton clients can send anything here
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequestError(f"{name} is {value!r}, must be a whole number from 0", param=name)
        limits.append(value * tokens)
    return min(limits, default=None)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
