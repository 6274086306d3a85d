"""Whether this server may offer certified exits: gates, certificate and the precision it runs at must fit together.

Where they do not, the reason is kept: a request for certified exits is refused with it, and a deployment whose default
is certified does not start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoglm_backend.engine.exits import CertifiedExits
from autoglm_backend.engine.shadow import SameAnswer, ShadowChecks, ShadowSettings
from autoglm_backend.models.certificate import Certificate, check_certificate, load_certificate
from autoglm_backend.models.config import CheckpointError, ModelConfig
from autoglm_backend.models.gates import load_gates
from autoglm_backend.models.router import Router, load_router
from autoglm_backend.preprocess.tokenizer import load_tokenizer
from autoglm_protocol.actions import same_action


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedOffer:
    exits: CertifiedExits
    certificate: Certificate
    router: Router | None
    """Calibrated together with the certificate, which covers its bytes: it is used where that holds."""


def certified_offer(
    checkpoint_dir: Path,
    config: ModelConfig,
    exits: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
    quantization: str,
) -> CertifiedOffer | CheckpointError:
    """What certified mode runs on, or why there is none: the error names the file and what is wrong with it.

    quantization: the engine option.
    """
    try:
        return _load_offer(
            checkpoint_dir,
            config.text.hidden_size,
            exits,
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            quantization="none" if quantization == "auto" else quantization,
        )
    except CheckpointError as reason:
        return reason


def shadow_checks(offer: CertifiedOffer, checkpoint_dir: Path, config: ModelConfig, share: float) -> ShadowChecks:
    """Checks of a share of finished requests against the certificate. Raises CheckpointError."""
    compare = _same_answer(checkpoint_dir, config.eos_token_ids)
    return ShadowChecks(ShadowSettings(share=share, delta=offer.certificate.delta, same_answer=compare))


def _load_offer(
    checkpoint_dir: Path,
    hidden_size: int,
    exits: tuple[int, ...],
    *,
    device: torch.device,
    dtype: str,
    quantization: str,
) -> CertifiedOffer:
    folder = checkpoint_dir / "exits"
    if not exits:
        raise CheckpointError(f"certified exits need exit heads, {folder} holds none")
    gates = load_gates(checkpoint_dir, hidden_size, exits)
    if gates is None:
        raise CheckpointError(f"certified exits need trained gates, {folder} holds no gates.json")
    certificate = load_certificate(checkpoint_dir)
    if certificate is None:
        raise CheckpointError(f"certified exits need a certificate, {folder} holds no certificate.json")
    for depth in certificate.thresholds:
        if depth not in gates.depths:
            raise CheckpointError(
                f"{folder / 'certificate.json'}: thresholds names depth {depth}, gates.json has {list(gates.depths)}"
            )
    check_certificate(certificate, checkpoint_dir, dtype=dtype, quantization=quantization)
    # The gates stay in float32: thresholds were calibrated on their values.
    served = CertifiedExits(gates=gates.to(device), thresholds=certificate.thresholds)
    router = load_router(checkpoint_dir, hidden_size, exits)
    if router is not None:
        router = replace(router, weight_D=router.weight_D.to(device), bias=router.bias.to(device))
    return CertifiedOffer(exits=served, certificate=certificate, router=router)


def _same_answer(checkpoint_dir: Path, hidden_ids: tuple[int, ...]) -> SameAnswer:
    """Compares two answers by the action they parse to. hidden_ids: end tokens, which are no text."""
    table = load_tokenizer(checkpoint_dir).token_table(hidden_ids)

    def text(ids: list[int]) -> str:
        return b"".join(table.visible_bytes(token) for token in ids).decode(errors="replace")

    return lambda a, b: a == b or same_action(text(a), text(b))
