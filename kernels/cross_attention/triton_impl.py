"""One program a tile of one frame's queries and a head: q stays in registers while the three softmaxes run one after the other.

Two accumulators, the sum so far and the branch at work, are what fills the registers. Keys and values come through 3-D descriptors,
which give zeros past the last key of a row rather than the next row's first.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.launch import INTERPRETED, TYPE_NAMES, Variant, check_launch

# Rows of a tile of queries; rows of a block of text or image keys by head width, as many as fit without spills; of audio keys.
TILE, KEYS, AUDIO_KEYS = 128, {64: 64, 128: 32}, 32
NUM_WARPS, NUM_STAGES = 8, 2
DTYPES = (torch.bfloat16, torch.float16)


@triton.jit
def _branch(q, k_desc, v_desc, row, head, num_keys, scale, HEAD_DIM: tl.constexpr, TILE: tl.constexpr, KEYS: tl.constexpr):
    """One softmax over the keys [row, :num_keys] of a head; loads past them give zeros. scale includes log2(e)."""
    peak = tl.full((TILE,), float("-inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    acc = tl.zeros((TILE, HEAD_DIM), tl.float32)
    for start in range(0, num_keys, KEYS):
        inside = start + tl.arange(0, KEYS) < num_keys
        k = tl.reshape(k_desc.load([row, start, head]), (KEYS, HEAD_DIM))
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_peak[:, None])
        fade = tl.exp2(peak - new_peak)
        total = total * fade + tl.sum(weights, axis=1)
        v = tl.reshape(v_desc.load([row, start, head]), (KEYS, HEAD_DIM))
        acc = tl.dot(weights.to(v.dtype), v, acc * fade[:, None], input_precision="ieee")
        peak = new_peak
    return acc / total[:, None]


@triton.jit
def cross_attention_kernel(
    q_ptr, text_k, text_v, image_k, image_v, audio_k, audio_v, weight_ptr, out_ptr,
    num_frames, frame_tokens, frame_tiles, text_keys, image_keys, audio_keys, text_sharers, image_sharers, scale,
    HAS_WEIGHT: tl.constexpr, DIM: tl.constexpr, HEAD_DIM: tl.constexpr, TILE: tl.constexpr, KEYS: tl.constexpr,
    AUDIO_KEYS: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(0) // frame_tiles
    head = tl.program_id(1) * HEAD_DIM
    batch = tl.program_id(2)
    in_frame = tl.program_id(0) % frame_tiles * TILE + tl.arange(0, TILE)
    inside = in_frame < frame_tokens
    # 64-bit numbers for the frame's base only: as offsets of every element they would cost the registers that prevent spills.
    first_token = (batch * num_frames + frame).to(tl.int64) * frame_tokens
    offset = in_frame[:, None] * DIM + tl.arange(0, HEAD_DIM)[None, :]
    q = tl.load(q_ptr + first_token * DIM + head + offset, mask=inside[:, None], other=0.0)
    out = _branch(q, audio_k, audio_v, batch * num_frames + frame, head, audio_keys, scale, HEAD_DIM, TILE, AUDIO_KEYS)
    if HAS_WEIGHT:
        out *= tl.load(weight_ptr + first_token + in_frame, mask=inside, other=0.0).to(tl.float32)[:, None]
    out += _branch(q, image_k, image_v, batch // image_sharers, head, image_keys, scale, HEAD_DIM, TILE, KEYS)
    out += _branch(q, text_k, text_v, batch // text_sharers, head, text_keys, scale, HEAD_DIM, TILE, KEYS)
    tl.store(out_ptr + first_token * DIM + head + offset, out.to(out_ptr.dtype.element_ty), mask=inside[:, None])


def unsupported(q: Tensor, num_heads: int) -> str | None:
    """What stands against the Triton kernel, naming what is supported."""
    dtypes = (*DTYPES, torch.float32) if INTERPRETED else DTYPES
    if q.dtype not in dtypes:
        return f"q must be one of {', '.join(map(str, dtypes))}, got {q.dtype}"
    if q.shape[2] // num_heads not in KEYS:
        return f"the width of a head must be one of {tuple(KEYS)}, got {q.shape[2] // num_heads}"
    return None


def launch(
    q: Tensor, text_k: Tensor, text_v: Tensor, image_k: Tensor, image_v: Tensor, audio_k: Tensor, audio_v: Tensor,
    audio_weight: Tensor | None, num_heads: int,
) -> Tensor:  # fmt: skip
    """Arguments already checked for shape; see the package."""
    tensors = (q, text_k, text_v, image_k, image_v, audio_k, audio_v)
    check_launch(*tensors, audio_weight)
    reason = unsupported(q, num_heads)
    if reason is not None:
        raise ValueError(reason)
    batch, tokens, dim = q.shape
    frames, head_dim = audio_k.shape[1], dim // num_heads
    tiles = triton.cdiv(tokens // frames, TILE)
    out = torch.empty_like(q)
    descriptors = [TensorDescriptor.from_tensor(t, [1, KEYS[head_dim], head_dim]) for t in (text_k, text_v, image_k, image_v)]
    descriptors += [TensorDescriptor.from_tensor(t.flatten(0, 1), [1, AUDIO_KEYS, head_dim]) for t in (audio_k, audio_v)]
    cross_attention_kernel[(frames * tiles, num_heads, batch)](
        q, *descriptors, q if audio_weight is None else audio_weight, out,
        frames, tokens // frames, tiles, text_k.shape[1], image_k.shape[1], audio_k.shape[2],
        batch // text_k.shape[0], batch // image_k.shape[0], head_dim**-0.5 * math.log2(math.e),
        **_constants(audio_weight is not None, dim, head_dim), num_warps=NUM_WARPS, num_stages=NUM_STAGES,
    )  # fmt: skip
    return out


def _constants(has_weight: bool, dim: int, head_dim: int) -> dict[str, int | bool]:
    sizes = {"DIM": dim, "HEAD_DIM": head_dim, "TILE": TILE, "KEYS": KEYS[head_dim], "AUDIO_KEYS": AUDIO_KEYS}
    return {"HAS_WEIGHT": has_weight, **sizes}


def shipped() -> list[Variant]:
    if INTERPRETED:
        raise RuntimeError("compiling needs the interpreter off")
    variants = []
    for head_dim in KEYS:
        for has_weight in (False, True):
            for element in (TYPE_NAMES[dtype] for dtype in DTYPES):
                blocks = dict.fromkeys(("text_k", "text_v", "image_k", "image_v"), KEYS[head_dim])
                blocks |= dict.fromkeys(("audio_k", "audio_v"), AUDIO_KEYS)
                types = {name: f"tensordesc<{element}[1, {keys}, {head_dim}]>" for name, keys in blocks.items()}
                types |= dict.fromkeys(("q_ptr", "weight_ptr", "out_ptr"), f"*{element}")
                sizes = ("num_frames", "frame_tokens", "frame_tiles", "text_keys", "image_keys", "audio_keys")
                types |= dict.fromkeys((*sizes, "text_sharers", "image_sharers"), "i32") | {"scale": "fp32"}
                variants.append(
                    Variant(
                        name=f"cross_attention {element} head {head_dim}{' weighted' if has_weight else ''}",
                        kernel=cross_attention_kernel, types=types, constants=_constants(has_weight, 12 * head_dim, head_dim),
                        num_warps=NUM_WARPS, num_stages=NUM_STAGES, tensor_cores=True,
                    )
                )  # fmt: skip
    return variants
