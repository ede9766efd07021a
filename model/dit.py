"""The masked-reconstruction diffusion transformer: one network for every task and every preset.

Input is the noisy latent beside a mask and the masked-video latent (known frames, or the reference where nothing is known);
text, image and audio enter through one cross attention with a shared query and a key/value set each (EchoMimicV3,
arXiv 2507.03905, section 3: coupled-decoupled multi-modal cross attention). Timesteps are per latent frame (Diffusion
Forcing, arXiv 2407.01392), so that known frames can be told apart from noisy ones. Parameter names follow the published
checkpoints. Legend: B batch, T latent frames, N tokens, P tokens of the context, D width, H heads, K head width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.gelu_linear import gelu_linear
from kernels.residual_norm import residual_gate_norm_modulate
from model.attention import BranchGains, ContextFn, CoupledCrossAttention, SelfAttention, StaticKeys, own_frames_only
from model.audio import NUM_MOUTH
from model.conditions import STEPS_BEFORE, move_basis
from model.config import DiTConfig, TrunkConfig
from model.rope import rope_table
from model.vae import dct_basis


class FeedForward(nn.Sequential):
    """A Sequential for its parameters' names; GELU is part of the first product where the device can."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__(nn.Linear(dim, ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(ffn_dim, dim))

    def forward(self, x_BND: Tensor) -> Tensor:
        up = self[0]
        # An eight-bit layer put in its place has its own product; autocast casts for torch's own layers alone.
        if not isinstance(up, nn.Linear) or up.weight.dtype != x_BND.dtype:
            return super().forward(x_BND)
        return self[2](gelu_linear(x_BND, up.weight, up.bias))


class Block(nn.Module):
    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.self_attn = SelfAttention(config.dim, config.num_heads, config.eps)
        self.cross_attn = CoupledCrossAttention(config.dim, config.num_heads, config.eps, config.audio_bias)
        self.norm3 = nn.LayerNorm(config.dim, eps=config.eps)
        self.ffn = FeedForward(config.dim, config.ffn_dim)
        self.modulation = nn.Parameter(torch.randn(1, 6, config.dim) / math.sqrt(config.dim))

    def forward(
        self, x_BND: Tensor, e_BT6D: Tensor, static: StaticKeys, audio_BTLD: Tensor, gains: BranchGains | None, layer: int,
        context: ContextFn, ropes: tuple[Tensor, Tensor],
    ) -> Tensor:  # fmt: skip
        """Every `residual_gate_norm_modulate` adds what the part before it made, and normalises for the part after it."""
        m = (e_BT6D + self.modulation.to(e_BT6D.dtype)).unbind(2)
        h = residual_gate_norm_modulate(x_BND, scale=m[1], shift=m[0], eps=self.eps).h
        y = self.self_attn(h, layer, context, ropes)
        x_BND, h, _ = residual_gate_norm_modulate(x_BND, y, m[2], weight=self.norm3.weight, bias=self.norm3.bias, eps=self.eps)
        y = self.cross_attn(h, static, audio_BTLD, gains)
        x_BND, h, _ = residual_gate_norm_modulate(x_BND, y, scale=m[4], shift=m[3], eps=self.eps)
        x_BTSD, y_BTSD = (t.unflatten(1, (m[5].shape[1], -1)) for t in (x_BND, self.ffn(h)))
        return torch.addcmul(x_BTSD, y_BTSD, m[5][:, :, None]).flatten(1, 2)


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
        m = (e_BTD[:, :, None] + self.modulation.to(e_BTD.dtype)).unbind(2)
        return self.head(residual_gate_norm_modulate(x_BND, scale=m[1], shift=m[0], eps=self.eps).h)


class MeanLatent(nn.Module):
    """What the latents of an average person do: learned maps, mixed for every video frame by a code of its moves and the sound around it.

    Latents are told relative to a portrait, and portraits are framed alike, so a jaw that drops looks much alike in them. This small part
    learns that within minutes; the transformer is told the codes too, and adds what depends on the person. One code a video frame,
    from the same weights for all of them, makes what happens within a latent frame follow from what happens between two.
    """

    # Adam moves a weight by about the learning rate a step: at gain 1 the maps would need thousands of steps to open a mouth.
    GAIN = 8.0

    latent_scale: Tensor
    time_basis: Tensor
    to_moves: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        frames = config.mask_channels
        self.hear = nn.Linear(config.audio_dim, NUM_MOUTH)  # training starts it from the audio encoder's own mouth shapes
        self.steps = (config.audio_tokens - STEPS_BEFORE) // frames  # of sound, a video frame
        width = (STEPS_BEFORE + self.steps) * NUM_MOUTH + config.control_dim // frames
        self.code = nn.Sequential(
            nn.Linear(width, config.dim), nn.GELU(approximate="tanh"), nn.Linear(config.dim, config.mean_codes)
        )
        self.maps = nn.Parameter(torch.zeros(config.mean_codes, config.latent_channels // frames, config.grid, config.grid))
        self.embed = nn.Linear(frames * config.mean_codes, config.dim)
        self.register_buffer("latent_scale", torch.ones(config.latent_channels))  # one over the autoencoder's `latent_std`
        self.register_buffer("time_basis", dct_basis(frames), persistent=False)
        self.register_buffer("to_moves", torch.linalg.inv(move_basis()), persistent=False)
        nn.init.zeros_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def forward(self, audio_BTLC: Tensor, control_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """The mean change [B, T, C, grid, grid] and the codes as the transformer is told them [B, T, D]."""
        heard = self.hear(audio_BTLC).unfold(2, STEPS_BEFORE + self.steps, self.steps).flatten(3)
        moves = torch.einsum("jk,btkm->btjm", self.to_moves.to(control_BTC.dtype), control_BTC.unflatten(2, (len(self.to_moves), -1)))
        code_BTFK = self.code(torch.cat((heard, moves), dim=-1))
        rotated = torch.einsum("jf,btfk->btjk", self.time_basis.to(code_BTFK.dtype), code_BTFK * self.GAIN)
        mean = torch.einsum("btjk,kchw->btjchw", rotated, self.maps.to(code_BTFK.dtype)).flatten(2, 3)
        return mean * self.latent_scale.to(mean.dtype)[:, None, None], self.embed(code_BTFK.flatten(2))


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
