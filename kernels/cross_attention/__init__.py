"""Cross attention to text, image and the audio of a token's own latent frame: one query, three softmaxes, one sum.

    out = attend(q, text) + attend(q, image) + audio_weight * attend(q, audio of its frame)          for each head

The coupled-decoupled cross attention of EchoMimicV3 (arXiv 2507.03905, section 3). audio_weight is per token: a face mask times
what the phase of denoising allots to sound. All keys given count, padded ones too.

q, out: [B, N, D], frame-major. text_k, text_v: [Bt, Lt, D] and image_k, image_v: [Bi, Li, D] where Bt and Bi divide B: consecutive rows
of q share one. They depend on neither time nor noise: project them once a session. audio_k, audio_v: [B, T, La, D], N a
multiple of T. audio_weight: [B, N] or None for 1. All contiguous, D = num_heads * head_dim; only the rows of text and image [L, D] may
be further apart from each other than L * D, so that one layer's keys of many may be given as they are.

Floor: q read once, out written once, 19 MB for 3072 tokens of 1536 in bfloat16; three library calls and their sum move 113 MB.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.dispatch import FLOATS, Implementation, check_contiguous, check_devices, check_dtype, check_shape, choose


def cross_attention(
    q: Tensor, text: tuple[Tensor, Tensor], image: tuple[Tensor, Tensor], audio: tuple[Tensor, Tensor], audio_weight: Tensor | None = None,
    *, num_heads: int, implementation: Implementation = "auto",
) -> Tensor:  # fmt: skip
    """The summed attention output [B, N, D]; text, image and audio are keys and values. See the module."""
    tensors = (q, *text, *image, *audio, audio_weight)
    _check(*tensors, num_heads)
    route = choose(implementation, tensors)
    if route == "operator":
        return _operator(*tensors, num_heads)
    return (_launch if route == "triton" else reference)(*tensors, num_heads)


def reference(
    q: Tensor, text_k: Tensor, text_v: Tensor, image_k: Tensor, image_v: Tensor, audio_k: Tensor, audio_v: Tensor,
    audio_weight: Tensor | None, num_heads: int,
) -> Tensor:  # fmt: skip
    """Three calls of torch's attention; for the audio every frame is a batch row of its own."""
    out = _attend(q, text_k, text_v, num_heads) + _attend(q, image_k, image_v, num_heads)
    batch, frames = audio_k.shape[:2]
    per_frame = q.reshape(batch * frames, -1, q.shape[-1])
    heard = _attend(per_frame, audio_k.flatten(0, 1), audio_v.flatten(0, 1), num_heads).view(q.shape)
    return out + (heard if audio_weight is None else heard * audio_weight[..., None].to(heard.dtype))


def _attend(q_BND: Tensor, k_bLD: Tensor, v_bLD: Tensor, num_heads: int) -> Tensor:
    k_BLD, v_BLD = (t.repeat_interleave(len(q_BND) // len(t), dim=0) for t in (k_bLD, v_bLD))
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (q_BND, k_BLD, v_BLD))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def _check(
    q: Tensor, text_k: Tensor, text_v: Tensor, image_k: Tensor, image_v: Tensor, audio_k: Tensor, audio_v: Tensor,
    audio_weight: Tensor | None, num_heads: int,
) -> None:  # fmt: skip
    if q.dim() != 3 or q.shape[2] % num_heads:
        raise ValueError(f"q must be [B, N, D] with D a multiple of {num_heads} heads, got {list(q.shape)}")
    batch, tokens, dim = q.shape
    check_devices((q, text_k, text_v, image_k, image_v, audio_k, audio_v, audio_weight))
    for name, k, v in (("text", text_k, text_v), ("image", image_k, image_v)):
        if k.dim() != 3 or k.shape[2] != dim or not k.shape[1] or batch % k.shape[0]:
            raise ValueError(f"{name} keys must be [a divisor of {batch}, at least 1, {dim}], got {list(k.shape)}")
        check_shape(f"{name} values", v, k.shape)
    if audio_k.dim() != 4 or audio_k.shape[0] != batch or audio_k.shape[3] != dim or not audio_k.shape[2] or tokens % audio_k.shape[1]:
        raise ValueError(f"audio keys must be [{batch}, a divisor of {tokens}, at least 1, {dim}], got {list(audio_k.shape)}")
    check_shape("audio values", audio_v, audio_k.shape)
    named = {"text": (text_k, text_v), "image": (image_k, image_v), "audio": (audio_k, audio_v)}
    for name, pair in named.items():
        for tensor in pair:
            check_dtype(name, tensor, (q.dtype,))
    if audio_weight is not None:
        check_shape("audio_weight", audio_weight, (batch, tokens))


def _launch(
    q: Tensor, text_k: Tensor, text_v: Tensor, image_k: Tensor, image_v: Tensor, audio_k: Tensor, audio_v: Tensor,
    audio_weight: Tensor | None, num_heads: int,
) -> Tensor:  # fmt: skip
    from kernels.cross_attention import triton_impl

    for name, tensor in {"q": q, "audio keys": audio_k, "audio values": audio_v}.items():
        check_contiguous(name, tensor)
    for name, tensor in {"text keys": text_k, "text values": text_v, "image keys": image_k, "image values": image_v}.items():
        if tensor.stride()[1:] != (tensor.shape[2], 1):
            raise ValueError(f"{name} must be contiguous but for the first dimension, got strides {tensor.stride()}")
    if audio_weight is not None:
        check_dtype("audio_weight", audio_weight, FLOATS)
        check_contiguous("audio_weight", audio_weight)
    return triton_impl.launch(q, text_k, text_v, image_k, image_v, audio_k, audio_v, audio_weight, num_heads)


@torch.library.custom_op("livemimic::cross_attention", mutates_args=(), device_types="cuda")
def _operator(
    q: Tensor, text_k: Tensor, text_v: Tensor, image_k: Tensor, image_v: Tensor, audio_k: Tensor, audio_v: Tensor,
    audio_weight: Tensor | None, num_heads: int,
) -> Tensor:  # fmt: skip
    from kernels.cross_attention import triton_impl

    if triton_impl.unsupported(q, num_heads):
        return reference(q, text_k, text_v, image_k, image_v, audio_k, audio_v, audio_weight, num_heads)
    return _launch(q, text_k, text_v, image_k, image_v, audio_k, audio_v, audio_weight, num_heads)


_operator.register_kernel("cpu")(reference)


@_operator.register_fake
def _(
    q: Tensor, text_k: Tensor, text_v: Tensor, image_k: Tensor, image_v: Tensor, audio_k: Tensor, audio_v: Tensor,
    audio_weight: Tensor | None, num_heads: int,
) -> Tensor:  # fmt: skip
    return q.new_empty(q.shape)
