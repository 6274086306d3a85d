"""The speech encoder (ours: GLM-4.1V checkpoints have none), in the shape of GLM-ASR's.

Log-mel frames of 10 ms pass two convolutions (the second halves the rate), rotary encoder layers without learned
positions, and a projector that stacks frames into decoder tokens, so a two-second command costs two seconds of work and
not a padded half minute. Weights live in the checkpoint's `speech/` sidecar.

With `num_pieces` the tokens are discrete: each slot is read as one of the decoder's own text pieces or as empty
(greedy CTC), and what was heard is handed on as those pieces' embeddings, right-aligned after empty slots. The decoder
then reads speech as typed text; the number of tokens still follows from the clip's length alone.

Shape legend: F mel frames (10 ms), S encoder frames (20 ms), A speech tokens, D hidden, H heads, d head dimension.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoglm_backend.models.config import CheckpointError, SpeechConfig, load_speech_config
from autoglm_backend.models.layers import Rotation, inverse_frequencies, rotate_halves
from autoglm_backend.models.weights import Progress, load_module

SPEECH_DIR = "speech"
CONFIG_NAME = "speech_config.json"
WEIGHTS_NAME = "speech.safetensors"


class SpeechAttention(nn.Module):
    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BSD: Tensor, rotation: Rotation, mask_B11S: Tensor | None) -> Tensor:
        shape = (*hidden_BSD.shape[:-1], self.num_heads, -1)
        q = rotate_halves(self.q_proj(hidden_BSD).view(shape), rotation).transpose(1, 2)
        k = rotate_halves(self.k_proj(hidden_BSD).view(shape), rotation).transpose(1, 2)
        v = self.v_proj(hidden_BSD).view(shape).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_B11S)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class SpeechLayer(nn.Module):
    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = SpeechAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_BSD: Tensor, rotation: Rotation, mask_B11S: Tensor | None) -> Tensor:
        hidden_BSD = hidden_BSD + self.attention(self.attention_norm(hidden_BSD), rotation, mask_B11S)
        return hidden_BSD + self.down_proj(F.gelu(self.up_proj(self.mlp_norm(hidden_BSD))))


class SpeechEncoder(nn.Module):
    def __init__(self, config: SpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mels, config.hidden_size, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=3, stride=2, padding=1)
        self.layers = nn.ModuleList(SpeechLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        stacked = config.hidden_size * config.frames_per_token
        self.projector_in = nn.Linear(stacked, config.out_hidden_size)
        self.projector_out = nn.Linear(config.out_hidden_size, config.out_hidden_size)
        if config.num_pieces:
            # Class and row 0 are the empty slot.
            self.piece_head = nn.Linear(config.out_hidden_size, config.num_pieces + 1)
            self.piece_embedding = nn.Embedding(config.num_pieces + 1, config.out_hidden_size)

    def encode_frames(self, mel_BFC: Tensor, num_frames_B: Tensor | None = None) -> Tensor:
        """Encoder frames [B, ceil(F / 2), D] (training reads characters from them with CTC).

        mel_BFC: log-mel, float [B, F, num_mels]. num_frames_B: true lengths of padded rows, None when none is padded.
        """
        hidden_BDF = F.gelu(self.conv1(mel_BFC.transpose(1, 2)))
        if num_frames_B is not None:
            # The second convolution must see the zeros beyond a row's end that it would see there without padding.
            frames = torch.arange(mel_BFC.shape[1], device=mel_BFC.device)
            hidden_BDF = hidden_BDF * (frames < num_frames_B[:, None])[:, None]
        hidden_BSD = F.gelu(self.conv2(hidden_BDF)).transpose(1, 2)
        num_steps = hidden_BSD.shape[1]
        config = self.config
        rotary_dim = int(config.hidden_size // config.num_heads * config.rotary_fraction)
        steps = torch.arange(num_steps, device=mel_BFC.device)
        angles = steps.float()[:, None] * inverse_frequencies(rotary_dim, config.rope_theta, mel_BFC.device)
        rotation = Rotation(angles.cos(), angles.sin())
        mask = None
        if num_frames_B is not None:
            mask = (steps < (num_frames_B[:, None] + 1) // 2)[:, None, None]
        for layer in self.layers:
            hidden_BSD = layer(hidden_BSD, rotation, mask)
        return self.norm(hidden_BSD)

    def project(self, hidden_BSD: Tensor) -> Tensor:
        """Encoder frames to speech tokens [B, ceil(S / frames_per_token), out_hidden]; the last one is zero-padded."""
        group = self.config.frames_per_token
        # Padded by the most that may be missing, then cut: `-S % group` is a shape that ONNX export cannot follow.
        num_tokens = (hidden_BSD.shape[1] + group - 1) // group
        hidden_BSD = F.pad(hidden_BSD, (0, 0, 0, group - 1))[:, : num_tokens * group]
        stacked = hidden_BSD.reshape(hidden_BSD.shape[0], num_tokens, group * hidden_BSD.shape[-1])
        return self.projector_out(F.gelu(self.projector_in(stacked)))

    def hear(self, tokens_BAD: Tensor) -> Tensor:
        """Heard pieces [B, A] of projected tokens: greedy CTC, right-aligned, 0 in the empty slots before them."""
        best_BA = self.piece_head(tokens_BAD).argmax(-1)
        before_BA = F.pad(best_BA[:, :-1], (1, 0))
        heard_BA = (best_BA != 0) & (best_BA != before_BA)
        order_BA = heard_BA.int().argsort(dim=1, stable=True)
        return torch.where(heard_BA, best_BA, 0).gather(1, order_BA)

    def forward(self, mel_BFC: Tensor) -> Tensor:
        """Speech tokens [B, A, out_hidden] for the decoder."""
        return self.listen(mel_BFC)[0]

    def listen(self, mel_BFC: Tensor) -> tuple[Tensor, Tensor | None]:
        """Speech tokens [B, A, out_hidden], and the heard pieces [B, A] (see `hear`) that they are made of."""
        tokens_BAD = self.project(self.encode_frames(mel_BFC))
        if not self.config.num_pieces:
            return tokens_BAD, None
        pieces_BA = self.hear(tokens_BAD)
        return self.piece_embedding(pieces_BA), pieces_BA


def load_speech_encoder(checkpoint_dir: Path, progress: Progress | None = None) -> SpeechEncoder | None:
    """The encoder of the checkpoint's `speech/` sidecar in float32 and evaluation mode; None without a sidecar.

    Raises CheckpointError naming the file and what is missing from it, surplus in it or wrongly shaped.
    """
    sidecar = checkpoint_dir / SPEECH_DIR
    if not sidecar.is_dir():
        return None
    encoder = SpeechEncoder(load_speech_config(sidecar / CONFIG_NAME))
    weights = sidecar / WEIGHTS_NAME
    if not weights.is_file():
        raise CheckpointError(f"{weights}: no such file")
    load_module(encoder, [weights], lambda name: name, progress)
    return encoder.eval().requires_grad_(False)
