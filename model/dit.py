"""The masked-reconstruction diffusion transformer: one network for every task and every preset.

Input is the noisy latent beside a mask and the masked-video latent (known frames, or the reference where nothing is known);
text, image and audio enter through one cross attention with a shared query and a key/value set each (EchoMimicV3,
arXiv 2507.03905, section 3: coupled-decoupled multi-modal cross attention). Timesteps are per latent frame (Diffusion
Forcing, arXiv 2407.01392), so that known frames can be told apart from noisy ones. Parameter names follow the published
checkpoints. Legend: B batch, T latent frames, N tokens, P tokens of the context, D width, H heads, K head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.audio import NUM_MOUTH
from model.config import DiTConfig, TrunkConfig
from model.rope import apply_rope, rope_table

# Given a layer's index and the keys (normalised, not yet rotated) and values [B, N, D] of the frames being computed, returns
# those they attend to: whole latent frames [B, P+N, D], oldest first, the computed ones last. Identity = bidirectional window.
ContextFn = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


# torch's fused CPU kernel is made for long sequences: for a few hundred keys its backward pass takes twice as long as two products.
MAX_WRITTEN_OUT_KEYS = 1024


class BranchGains(NamedTuple):
    """What each branch of the cross attention is multiplied by before the sum: numbers, or tensors that fit [B, N, D]."""

    text: Tensor | float
    image: Tensor | float
    audio: Tensor | float


class StaticKeys(NamedTuple):
    """Keys (normalised) and values of text [..., L, D] and image [..., M, D]: the same in every step of a prompt and portrait."""

    text_k: Tensor
    text_v: Tensor
    image_k: Tensor
    image_v: Tensor


def own_frames_only(layer: int, k_BND: Tensor, v_BND: Tensor) -> tuple[Tensor, Tensor]:
    """The context of a window that is computed whole: nothing beyond itself."""
    return k_BND, v_BND


class RMSNorm(nn.Module):
    """RMS normalisation over the full width, in float32, then the learned weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), eps=self.eps).to(x.dtype) * self.weight.to(x.dtype)


def _layer_norm(x: Tensor, eps: float) -> Tensor:
    return F.layer_norm(x.float(), (x.shape[-1],), eps=eps).to(x.dtype)


def attend(q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, num_heads: int) -> Tensor:
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (q_BND, k_BMD, v_BMD))
    if q.device.type == "cpu" and k.shape[2] <= MAX_WRITTEN_OUT_KEYS:
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1)
        return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _per_token(m_BTKD: Tensor, num_tokens: int) -> Tensor:
    """A frame's modulation for each of its tokens; one for the whole sequence is left to broadcast."""
    frames = m_BTKD.shape[1]
    return m_BTKD if frames == 1 else m_BTKD.repeat_interleave(num_tokens // frames, dim=1)


class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, eps), RMSNorm(dim, eps)

    def forward(self, x_BND: Tensor, layer: int, context: ContextFn, ropes: tuple[Tensor, Tensor]) -> Tensor:
        q_rope, k_rope = ropes
        k, v = context(layer, self.norm_k(self.k(x_BND)), self.v(x_BND))
        q = apply_rope(self.norm_q(self.q(x_BND)).unflatten(-1, (self.num_heads, -1)), q_rope).flatten(2)
        k = apply_rope(k.unflatten(-1, (self.num_heads, -1)), k_rope).flatten(2)
        return self.o(attend(q, k, v, self.num_heads))


class CoupledCrossAttention(nn.Module):
    """Shared query; text and image seen by all tokens, audio only by the tokens of its own latent frame; outputs summed.

    With `audio_bias` the audio projections have biases, and a query of their own that the published files hold and nothing reads.
    """

    def __init__(self, dim: int, num_heads: int, eps: float, audio_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.o = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_q = RMSNorm(dim, eps)
        self.k, self.v, self.norm_k = nn.Linear(dim, dim), nn.Linear(dim, dim), RMSNorm(dim, eps)
        self.k_img, self.v_img, self.norm_k_img = nn.Linear(dim, dim), nn.Linear(dim, dim), RMSNorm(dim, eps)
        self.k_audio, self.v_audio = nn.Linear(dim, dim, bias=audio_bias), nn.Linear(dim, dim, bias=audio_bias)
        self.norm_k_audio = RMSNorm(dim, eps)
        if audio_bias:
            self.q_audio = nn.Linear(dim, dim)

    def static_keys(self, text_BLD: Tensor, image_BLD: Tensor) -> StaticKeys:
        return StaticKeys(
            self.norm_k(self.k(text_BLD)), self.v(text_BLD), self.norm_k_img(self.k_img(image_BLD)), self.v_img(image_BLD)
        )

    def forward(self, x_BND: Tensor, static: StaticKeys, audio_BTLD: Tensor, gains: BranchGains | None = None) -> Tensor:
        """`static` may be given once for several consecutive rows of the batch."""
        q = self.norm_q(self.q(x_BND))
        batch, frames = audio_BTLD.shape[:2]
        # Rows that share their keys are queries of one attention: nothing is repeated.
        shared = q.reshape(len(static.text_k), -1, q.shape[-1])
        text = attend(shared, static.text_k, static.text_v, self.num_heads).view_as(q)
        image = attend(shared, static.image_k, static.image_v, self.num_heads).view_as(q)
        audio = audio_BTLD.flatten(0, 1)
        per_frame = attend(
            q.reshape(batch * frames, -1, q.shape[-1]), self.norm_k_audio(self.k_audio(audio)), self.v_audio(audio), self.num_heads
        )
        sound = per_frame.view_as(q)
        return self.o(text + image + sound if gains is None else text * gains.text + image * gains.image + sound * gains.audio)


class Block(nn.Module):
    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn = SelfAttention(config.dim, config.num_heads, config.eps)
        self.cross_attn = CoupledCrossAttention(config.dim, config.num_heads, config.eps, config.audio_bias)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.ffn = nn.Sequential(
            nn.Linear(config.dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, config.dim)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / math.sqrt(config.dim))

    def forward(
        self, x_BND: Tensor, e_BT6D: Tensor, static: StaticKeys, audio_BTLD: Tensor, gains: BranchGains | None, layer: int,
        context: ContextFn, ropes: tuple[Tensor, Tensor],
    ) -> Tensor:  # fmt: skip
        m = _per_token(e_BT6D + self.modulation.to(e_BT6D.dtype), x_BND.shape[1]).unbind(2)
        x_BND = x_BND + self.self_attn(_layer_norm(x_BND, self.eps) * (1 + m[1]) + m[0], layer, context, ropes) * m[2]
        x_BND = x_BND + self.cross_attn(self.norm3(x_BND), static, audio_BTLD, gains)
        return x_BND + self.ffn(_layer_norm(x_BND, self.eps) * (1 + m[4]) + m[3]) * m[5]


def static_keys(blocks: Iterable[nn.Module], text_BLD: Tensor, image_BMD: Tensor) -> StaticKeys:
    """Of all layers: [B, layers, L, D] and [B, layers, M, D]."""
    per_layer = [cast(Block, block).cross_attn.static_keys(text_BLD, image_BMD) for block in blocks]
    return StaticKeys(*(torch.stack(column, dim=1) for column in zip(*per_layer, strict=True)))


class Head(nn.Module):
    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = nn.Linear(config.dim, config.patch**2 * config.latent_channels)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / math.sqrt(config.dim))

    def forward(self, x_BND: Tensor, e_BTD: Tensor) -> Tensor:
        m = _per_token(e_BTD[:, :, None] + self.modulation.to(e_BTD.dtype), x_BND.shape[1]).unbind(2)
        return self.head(_layer_norm(x_BND, self.eps) * (1 + m[1]) + m[0])


class MeanLatent(nn.Module):
    """What the latents of an average person do: learned maps, mixed by a code of the controls and the sound.

    Latents are told relative to a portrait, and portraits are framed alike, so a head that turns or a jaw that drops looks much alike
    in them. This small part learns that within minutes; the transformer is told the code too, and adds what depends on the person.
    """

    # Adam moves a weight by about the learning rate a step: at gain 1 the maps would need thousands of steps to open a mouth.
    GAIN = 8.0

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.hear = nn.Linear(config.audio_dim, NUM_MOUTH)  # training starts it from the audio encoder's own mouth shapes
        width = config.audio_tokens * NUM_MOUTH + config.control_dim
        self.code = nn.Sequential(
            nn.Linear(width, config.dim), nn.GELU(approximate="tanh"), nn.Linear(config.dim, config.mean_codes)
        )
        self.maps = nn.Parameter(torch.zeros(config.mean_codes, config.latent_channels, config.grid, config.grid))
        self.embed = nn.Linear(config.mean_codes, config.dim)
        nn.init.zeros_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def forward(self, audio_BTLC: Tensor, control_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """The mean change [B, T, C, grid, grid] and the code as the transformer is told it [B, T, D]."""
        code = self.code(torch.cat((self.hear(audio_BTLC).flatten(2), control_BTC), dim=-1))
        return torch.einsum("btk,kchw->btchw", code * self.GAIN, self.maps.to(code.dtype)), self.embed(code)


def timestep_embedding(t: Tensor, dim: int, precision: torch.dtype = torch.float32) -> Tensor:
    """Sinusoids of t (0..1000), cosines first; float32 [..., dim], computed in `precision`."""
    half = dim // 2
    frequency = 10000.0 ** (-torch.arange(half, device=t.device, dtype=precision) / half)
    angle = t.to(precision)[..., None] * frequency
    return torch.cat((angle.cos(), angle.sin()), dim=-1).float()


def unpatch(x_BNK: Tensor, frames: int, rows: int, columns: int, patch: int) -> Tensor:
    """The head's numbers, ordered (row, column, channel) within a patch, as latents [B, T, C, h, w]."""
    x = x_BNK.view(len(x_BNK), frames, rows, columns, patch, patch, -1).permute(0, 1, 6, 2, 4, 3, 5)
    return x.reshape(len(x_BNK), frames, -1, rows * patch, columns * patch)


class DiT(nn.Module):
    """Returns, for every latent pixel, what to add to the masked-video latent to make it clean.

    With an untrained head that is nothing: the reference itself, sharp and still; training only adds what moves.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.dim
        self.patch_embedding = nn.Conv2d(config.in_channels, dim, config.patch, stride=config.patch)
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim))
        self.img_emb = nn.Sequential(nn.LayerNorm(config.image_dim), nn.Linear(config.image_dim, dim), nn.LayerNorm(dim))
        self.audio_embedding = nn.Sequential(nn.Linear(config.audio_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim))
        self.image_position = nn.Parameter(torch.randn(config.image_tokens, dim) * 0.02)
        self.audio_position = nn.Parameter(torch.randn(config.audio_tokens, dim) * 0.02)
        self.control_embedding = nn.Sequential(nn.Linear(config.control_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)
        if config.grid:
            self.position_embedding = nn.Parameter(torch.zeros((config.grid // config.patch) ** 2, config.dim))
        if config.mean_codes:
            self.mean_latent = MeanLatent(config)
        nn.init.zeros_(self.head.head.weight)
        nn.init.zeros_(self.head.head.bias)
        self._rope_tables: dict[tuple[int, int, int], Tensor] = {}

    def static_keys(self, text_BLC: Tensor, image_BLC: Tensor) -> StaticKeys:
        """Of all layers: [B, layers, L, D] and [B, layers, M, D]."""
        text, image = self.text_embedding(text_BLC), self.img_emb(image_BLC) + self.image_position.to(image_BLC.dtype)
        return static_keys(self.blocks, text, image)

    def forward(
        self, x_BTCHW: Tensor, mask_BTMHW: Tensor, y_BTCHW: Tensor, t_BT: Tensor, *,
        static: StaticKeys, audio_BTLC: Tensor, control_BTC: Tensor,
        context: ContextFn = own_frames_only, context_frames: int = 0,
    ) -> Tensor:  # fmt: skip
        """What to add to y [B, T, C, h, w].

        t is the noise level of each frame in 0..1, mask 1 = known, y the masked-video latent. `context` adds the keys and values
        of `context_frames` earlier frames; positions are local to the window (context first), so they never grow with time.
        `static`, of all layers, may be given once for several consecutive rows of the batch.
        """
        config = self.config
        batch, frames, _, height, width = x_BTCHW.shape
        rows, columns = height // config.patch, width // config.patch
        # A convolution that does not overlap is a matrix product of its patches, on a CPU the faster form.
        patches = F.unfold(torch.cat((x_BTCHW, mask_BTMHW, y_BTCHW), dim=2).flatten(0, 1), config.patch, stride=config.patch)
        tokens = F.linear(patches.transpose(1, 2), self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)
        x_BND = tokens.reshape(batch, frames * rows * columns, config.dim)
        if config.grid:
            x_BND = x_BND + self.position_embedding.to(x_BND.dtype).repeat(frames, 1)
        e_BTD = self.time_embedding(timestep_embedding(t_BT * 1000.0, config.freq_dim).to(x_BND.dtype))
        e_BTD = e_BTD + self.control_embedding(control_BTC)
        if config.mean_codes:
            mean, told = self.mean_latent(audio_BTLC, control_BTC)
            e_BTD = e_BTD + told
        e_BT6D = self.time_projection(e_BTD).unflatten(-1, (6, -1))
        audio = self.audio_embedding(audio_BTLC) + self.audio_position.to(audio_BTLC.dtype)
        table = self._rope_table(context_frames + frames, rows, columns, x_BND.device)
        ropes = (table[context_frames * rows * columns :], table)
        for layer, block in enumerate(self.blocks):
            keys = StaticKeys(*(kept[:, layer] for kept in static))
            x_BND = block(x_BND, e_BT6D, keys, audio, None, layer, context, ropes)
        out = unpatch(self.head(x_BND, e_BTD), frames, rows, columns, config.patch)
        return out + mean if config.mean_codes else out

    def _rope_table(self, frames: int, rows: int, columns: int, device: torch.device) -> Tensor:
        key = (frames, rows, columns)
        if key not in self._rope_tables:
            with torch.inference_mode(False):
                self._rope_tables[key] = rope_table(self.config.head_dim, *key).to(device)
        return self._rope_tables[key]
