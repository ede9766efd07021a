"""The transformer's attention layers: self-attention over a window, and the coupled cross attention to text, image and audio.

The one place that knows about devices: on a GPU in inference everything goes through `kernels` (one pass from packed q, k, v to rotated
rows, ring or dense attention, three branches in one kernel), on a CPU through torch's own calls in the form that is fastest there.
Parameter names follow the published checkpoints. Legend: B batch, T latent frames, N tokens, P tokens of the context, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels.cross_attention import cross_attention
from kernels.qkv_rope import qkv_norm_rope_append
from kernels.window_attention import Session, window_attention
from model.rope import apply_rope

# Given a layer's index and the keys (normalised, not yet rotated) and values [B, N, D] of the frames being computed, returns
# those they attend to: whole latent frames [B, P+N, D], oldest first, the computed ones last. Identity = bidirectional window.
ContextFn = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


# torch's fused CPU kernel is made for long sequences: for a few hundred keys its backward pass takes twice as long as two products.
MAX_WRITTEN_OUT_KEYS = 1024


class BranchGains(NamedTuple):
    """What each branch of the cross attention is multiplied by before the sum: a number, or one for each token, [B, N or 1, 1]. The fused
    kernel takes the latter for the audio alone."""

    text: float
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


def fused(x: Tensor) -> bool:
    """Whether attention goes through the kernels: on a GPU, where no gradients are needed.

    On a CPU it is written out here, which is faster there than the kernels' references.
    """
    return x.device.type == "cuda" and not torch.is_grad_enabled()


def attend(q_BND: Tensor, k_BMD: Tensor, v_BMD: Tensor, num_heads: int) -> Tensor:
    if fused(q_BND):
        batch, tokens, keys = *q_BND.shape[:2], k_BMD.shape[1]
        alike = [Session(tokens, i * keys, keys, 0, keys) for i in range(batch)]
        return window_attention(q_BND.flatten(0, 1), k_BMD.flatten(0, 1), v_BMD.flatten(0, 1), alike, num_heads=num_heads).view_as(q_BND)
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (q_BND, k_BMD, v_BMD))
    if q.device.type == "cpu" and k.shape[2] <= MAX_WRITTEN_OUT_KEYS:
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1)
        return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@lru_cache(maxsize=16)
def _rows(batch: int, tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of every token of a batch its position in its window and its row, int32 [B*N]."""
    with torch.inference_mode(False):
        row = torch.arange(batch * tokens, dtype=torch.int32, device=device)
        return row % tokens, row


class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, eps: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(dim, eps), RMSNorm(dim, eps)
        self._packed: tuple[Tensor, Tensor] | None = None

    def forward(self, x_BND: Tensor, layer: int, context: ContextFn, ropes: tuple[Tensor, Tensor]) -> Tensor:
        q_rope, k_rope = ropes
        if context is own_frames_only and fused(x_BND):
            q, k, v = self._in_one_pass(x_BND, q_rope)
            return self.o(attend(q, k, v, self.num_heads))
        k, v = context(layer, self.norm_k(self.k(x_BND)), self.v(x_BND))
        q = apply_rope(self.norm_q(self.q(x_BND)).unflatten(-1, (self.num_heads, -1)), q_rope).flatten(2)
        k = apply_rope(k.unflatten(-1, (self.num_heads, -1)), k_rope).flatten(2)
        return self.o(attend(q, k, v, self.num_heads))

    def _in_one_pass(self, x_BND: Tensor, rope_NK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated queries and keys, and values, of a window that is computed whole: one product, one kernel over its rows."""
        qkv = F.linear(x_BND, *self._packed_weights()).flatten(0, 1)
        position, row = _rows(*x_BND.shape[:2], x_BND.device)
        k, v = (x_BND.new_empty(qkv.shape[0], x_BND.shape[2]) for _ in range(2))
        weights, table = (self.norm_q.weight, self.norm_k.weight), torch.view_as_real(rope_NK)
        q = qkv_norm_rope_append(qkv, *weights, table, position, row, k, v, eps=self.norm_q.eps).q
        return q.view_as(x_BND), k.view_as(x_BND), v.view_as(x_BND)

    def _packed_weights(self) -> tuple[Tensor, Tensor]:
        """Those of q, k and v in one. The three layers' own become views of them: nothing is kept twice, and new numbers are seen."""
        layers = (self.q, self.k, self.v)
        pieces = () if self._packed is None else tuple(zip(*(t.chunk(3) for t in self._packed), strict=True))
        if [(w.data_ptr(), b.data_ptr()) for w, b in pieces] != [(layer.weight.data_ptr(), layer.bias.data_ptr()) for layer in layers]:
            with torch.inference_mode(False), torch.no_grad():
                self._packed = (torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers]))
                for layer, weight, bias in zip(layers, *(t.chunk(3) for t in self._packed), strict=True):
                    layer.weight.data, layer.bias.data = weight, bias
        assert self._packed is not None
        return self._packed


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
        audio = self.norm_k_audio(self.k_audio(audio_BTLD)), self.v_audio(audio_BTLD)
        if fused(q):
            return self.o(self._in_one_kernel(q, static, audio, gains or BranchGains(1.0, 1.0, 1.0)))
        batch, frames = audio_BTLD.shape[:2]
        # Rows that share their keys are queries of one attention: nothing is repeated.
        shared = q.reshape(len(static.text_k), -1, q.shape[-1])
        text = attend(shared, static.text_k, static.text_v, self.num_heads).view_as(q)
        image = attend(shared, static.image_k, static.image_v, self.num_heads).view_as(q)
        per_frame = q.reshape(batch * frames, -1, q.shape[-1])
        sound = attend(per_frame, audio[0].flatten(0, 1), audio[1].flatten(0, 1), self.num_heads).view_as(q)
        return self.o(text + image + sound if gains is None else text * gains.text + image * gains.image + sound * gains.audio)

    def _in_one_kernel(self, q_BND: Tensor, static: StaticKeys, audio: tuple[Tensor, Tensor], gains: BranchGains) -> Tensor:
        """The gains of text and image go into their values; that of the audio, if it is not 1, is the kernel's weight of each token."""
        assert not isinstance(gains.image, Tensor)
        text = static.text_k, static.text_v if gains.text == 1.0 else static.text_v * gains.text
        image = static.image_k, static.image_v if gains.image == 1.0 else static.image_v * gains.image
        weight = None
        if isinstance(gains.audio, Tensor) or gains.audio != 1.0:
            weight = torch.as_tensor(gains.audio).to(q_BND).expand(*q_BND.shape[:2], 1).squeeze(2).contiguous()
        return cross_attention(q_BND, text, image, audio, weight, num_heads=self.num_heads)
