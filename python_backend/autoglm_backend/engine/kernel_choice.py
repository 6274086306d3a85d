"""Which form each of the decoder's matrix products takes on this CPU: measured once, remembered on disk.

A form that wins for one token may lose for many, so each product is timed at a few sizes, over more weights than the
CPU's caches hold: that is how decoding meets them. The choice is made before the first request and kept,
so one server's numbers do not change while it runs.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autoglm_backend.engine.kv_cache import KVCache, paged_attend
from autoglm_backend.engine.step_tables import RowSpan, SegmentTables
from autoglm_backend.models.decoder import DecoderLayer, TextDecoder

log = logging.getLogger(__name__)

PRODUCTS = ("qkv", "o", "gate_up", "down", "head")
SIZES = (1, 8, 128)
"""Tokens of a step that are timed: one stream, a batch, a prompt."""
COLD_BYTES = 48 << 20
"""Weights of so many bytes in turn, more than most CPUs cache; a smaller model's are taken several times."""
BUDGET_S = 4.0
"""All timing of one start; products that come later keep their default form until the next one."""
BOTH_FORMS_BYTES = 256 << 20
"""Up to this size of the decoder, memory is spent on a second form where one token wants another than many."""
PREFERRED = ("streamed", "packed")
"""The first of these that there is stays unless another is quicker by more than ADVANTAGE: numbers differ in their last
digits between forms, so two starts should not choose differently because of noise."""
ADVANTAGE = 1.1
FORMAT = 3

MakeForm = Callable[[Tensor, Tensor | None], Callable[[Tensor], Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Names of forms: for one token, and for more."""

    few: str
    many: str


def prepare_decoder(decoder: TextDecoder, quantization: str, block_tokens: int, cache_dir: Path | None = None) -> None:
    """Give the decoder's layers the fastest form, in place, and compile what they run; nothing without kernels for it.

    quantization: auto, none, int8 or int4; of a CPU's weights. cache_dir: where choices are kept; None is the user's
    cache folder. Raises ValueError for a quantization that this device or precision does not have.
    """
    weight = decoder.norm.weight
    if weight.device.type == "cuda":
        return  # rounded while it was loaded (engine/loading.py), where asked for
    if quantization == "fp8":
        raise ValueError("quantization fp8 needs a CUDA GPU; a CPU takes int8 or int4")
    if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16):
        if quantization in ("int8", "int4"):
            raise ValueError(f"quantization {quantization} needs a CPU and float32 or bfloat16")
        return
    # Here, not above: numba takes half a second to load, and only CPU decoders need it.
    from autoglm_backend.models.cpu_decoder import prepare_for_cpu
    from autoglm_backend.models.cpu_linear import ByTokens, Linear, PackedLinear, PlainLinear
    from autoglm_backend.models.cpu_product import StreamedLinear
    from autoglm_backend.models.quantization import INT4_GROUP, Int4Linear, Int8Linear

    if quantization in ("int8", "int4"):

        def make_quantized(name: str, weight_NK: Tensor, bias_N: Tensor | None) -> Linear:
            # The head decides between neighbours: it stays at 8 bits, as do layers that 4-bit groups do not divide.
            outputs, inputs = weight_NK.shape
            is_int4 = quantization == "int4" and name != "head" and not inputs % INT4_GROUP and not outputs % 16
            return Int4Linear(weight_NK, bias_N) if is_int4 else Int8Linear(weight_NK, bias_N)

        prepare_for_cpu(decoder, make_quantized)
        _compile(decoder, block_tokens)
        return
    forms: dict[str, MakeForm] = {"plain": PlainLinear, "packed": PackedLinear, "streamed": StreamedLinear}
    if not _takes(StreamedLinear, decoder):
        del forms["streamed"]
    choices = remembered_choices(decoder, forms, cache_dir or default_cache_dir())
    default = next(form for form in PREFERRED if form in forms)

    def make(name: str, weight_NK: Tensor, bias_N: Tensor | None) -> Linear:
        choice = choices.get(name, Choice(few=default, many=default))
        many = forms[choice.many](weight_NK, bias_N)
        return many if choice.few == choice.many else ByTokens(1, forms[choice.few](weight_NK, bias_N), many)

    prepare_for_cpu(decoder, make)
    _compile(decoder, block_tokens)


@torch.inference_mode()
def _takes(make: MakeForm, decoder: TextDecoder) -> bool:
    """Whether every product of the decoder can have this form on this machine."""
    try:
        for weights in _products(decoder, least_bytes=1).values():
            make(weights[0], None)
    except ValueError as error:
        log.info("a form of the matrix products is left out: %s", error)
        return False
    return True


@torch.inference_mode()
def _compile(decoder: TextDecoder, block_tokens: int) -> None:
    """Run one token through one layer, so that no request waits for numba."""
    weight = decoder.norm.weight
    cache = KVCache(decoder.config, 1, block_tokens, weight.dtype, weight.device)
    nothing = np.zeros(1, dtype=np.int64)
    tables = SegmentTables(
        rows=(RowSpan(0, 1),), blocks_BN=nothing[None], row_T=nothing, position_T=nothing, slots_T=nothing
    )
    rotation = decoder.rotation(torch.zeros((3, 1), dtype=torch.int64))
    decoder.run_span(0, 1, weight.new_zeros((1, decoder.config.hidden_size)), rotation, paged_attend(cache, tables))


def remembered_choices(decoder: TextDecoder, forms: Mapping[str, MakeForm], cache_dir: Path) -> dict[str, Choice]:
    """Read this machine's choices for these shapes; what is not there is measured and written down."""
    path = cache_dir / f"kernels-{_key(decoder, forms)}.json"
    known: dict[str, Choice] = {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        known = {name: Choice(few=str(choice["few"]), many=str(choice["many"])) for name, choice in stored.items()}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s is damaged (%s) and is made anew", path, error)
    if known.keys() >= set(PRODUCTS):
        return known
    choices = {**known, **measure_choices(decoder, forms, known.keys())}
    content = json.dumps({name: {"few": choice.few, "many": choice.many} for name, choice in choices.items()})
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # Of another name until it is whole: two servers may start at once.
        unfinished = path.with_suffix(f".{os.getpid()}")
        unfinished.write_text(content + "\n", encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        log.warning("%s cannot be kept (%s): the next start measures again", path, error)
    return choices


@torch.inference_mode()
def measure_choices(
    decoder: TextDecoder, forms: Mapping[str, MakeForm], known: Collection[str] = ()
) -> dict[str, Choice]:
    """Time every product that is not known in every form. Those beyond the time budget are left to the next start."""
    deadline_s = time.monotonic() + BUDGET_S
    may_have_both = sum(p.numel() * p.element_size() for p in decoder.parameters()) <= BOTH_FORMS_BYTES
    choices: dict[str, Choice] = {}
    for name, weights in _products(decoder, least_bytes=COLD_BYTES).items():
        if name in known:
            continue
        if time.monotonic() > deadline_s:
            log.info("timing products took over %.0f s; %s has its default form until the next start", BUDGET_S, name)
            break
        seconds = {form: [_time_form(make, weights, size) for size in SIZES] for form, make in forms.items()}
        best = [min(seconds[form][i] for form in forms) for i in range(len(SIZES))]
        # Relative to the best of each size, so that a long prompt does not outweigh every token after it.
        cost = {form: [s / b for s, b in zip(seconds[form], best, strict=True)] for form in forms}
        if may_have_both:
            few = _cheapest({form: cost[form][0] for form in forms})
            choices[name] = Choice(few=few, many=_cheapest({form: sum(cost[form][1:]) for form in forms}))
        else:
            for_all = _cheapest({form: sum(cost[form]) for form in forms})
            choices[name] = Choice(few=for_all, many=for_all)
    log.info("matrix products: %s", {name: (choice.few, choice.many) for name, choice in choices.items()})
    return choices


def _cheapest(cost: Mapping[str, float]) -> str:
    best = min(cost, key=cost.__getitem__)
    return next((form for form in PREFERRED if form in cost and cost[form] <= ADVANTAGE * cost[best]), best)


def _products(decoder: TextDecoder, *, least_bytes: int) -> dict[str, list[Tensor]]:
    """Weights of each of PRODUCTS, of as many layers as it takes for so many bytes."""
    products: dict[str, list[Tensor]] = {}
    for layer in decoder.layers:
        assert isinstance(layer, DecoderLayer)
        attention, mlp = layer.self_attn, layer.mlp
        parts: dict[str, Sequence[nn.Linear]] = {
            "qkv": (attention.q_proj, attention.k_proj, attention.v_proj),
            "o": (attention.o_proj,),
            "gate_up": (mlp.gate_up_proj,),
            "down": (mlp.down_proj,),
        }
        for name, linears in parts.items():
            weights = products.setdefault(name, [])
            if sum(weight.nbytes for weight in weights) < least_bytes:
                weights.append(torch.cat([linear.weight for linear in linears]))
    products["head"] = [decoder.lm_head.weight.detach()]
    return products


def _time_form(make: MakeForm, weights: Sequence[Tensor], tokens: int) -> float:
    """Seconds of one pass over all the weights, the best of four."""
    copies = -(-COLD_BYTES // sum(weight.nbytes for weight in weights))
    linears = [make(weight.clone(), None) for _ in range(copies) for weight in weights]
    x_TK = torch.randn((tokens, weights[0].shape[1]), dtype=weights[0].dtype)
    best = float("inf")
    for _ in range(4):
        began = time.perf_counter()
        for linear in linears:
            linear(x_TK)
        best = min(best, time.perf_counter() - began)
    return best


def default_cache_dir() -> Path:
    """The user's cache folder (XDG), this product's part of it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoglm"


def _key(decoder: TextDecoder, forms: Mapping[str, MakeForm]) -> str:
    config = decoder.config
    facts = (
        *(
            FORMAT,
            _cpu_name(),
            torch.__version__,
            torch.get_num_threads(),
            str(decoder.norm.weight.dtype),
            sorted(forms),
        ),
        *(config.hidden_size, config.intermediate_size, config.num_heads, config.num_kv_heads, config.num_layers),
        config.vocab_size,
    )
    return hashlib.blake2b(repr(facts).encode(), digest_size=8).hexdigest()


def _cpu_name() -> str:
    """Model and flags: what decides which instructions the libraries use."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
