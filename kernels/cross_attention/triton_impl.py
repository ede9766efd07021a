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
from kernels.tuning import Parameters, parameters

HEAD_DIMS = (64, 128)
DTYPES = (torch.bfloat16, torch.float16)
# Rows of a tile of queries, of a block of text or image keys (as many as fit without spills), and of a block of audio keys.
_COMMON = {"TILE": 128, "AUDIO_KEYS": 32, "num_warps": 8, "num_stages": 2}
DEFAULTS: dict[str, Parameters] = {"head 64": _COMMON | {"KEYS": 64}, "head 128": _COMMON | {"KEYS": 32}}
PARAMETERS = parameters("cross_attention", DEFAULTS)


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
    if q.shape[2] // num_heads not in HEAD_DIMS:
        return f"the width of a head must be one of {HEAD_DIMS}, got {q.shape[2] // num_heads}"
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
    chosen = PARAMETERS[f"head {head_dim}"]
    tiles = triton.cdiv(tokens // frames, chosen["TILE"])
    out = torch.empty_like(q)
    descriptors = [TensorDescriptor.from_tensor(t, [1, chosen["KEYS"], head_dim]) for t in (text_k, text_v, image_k, image_v)]
    descriptors += [TensorDescriptor.from_tensor(t.flatten(0, 1), [1, chosen["AUDIO_KEYS"], head_dim]) for t in (audio_k, audio_v)]
    cross_attention_kernel[(frames * tiles, num_heads, batch)](
        q, *descriptors, q if audio_weight is None else audio_weight, out,
        frames, tokens // frames, tiles, text_k.shape[1], image_k.shape[1], audio_k.shape[2],
        batch // text_k.shape[0], batch // image_k.shape[0], head_dim**-0.5 * math.log2(math.e),
        HAS_WEIGHT=audio_weight is not None, DIM=dim, HEAD_DIM=head_dim, **chosen,
    )  # fmt: skip
    return out


def variants(case: str, chosen: Parameters) -> list[Variant]:
    head_dim = int(case.removeprefix("head "))
    found = []
    for has_weight in (False, True):
        for element in (TYPE_NAMES[dtype] for dtype in DTYPES):
            blocks = dict.fromkeys(("text_k", "text_v", "image_k", "image_v"), chosen["KEYS"])
            blocks |= dict.fromkeys(("audio_k", "audio_v"), chosen["AUDIO_KEYS"])
            types = {name: f"tensordesc<{element}[1, {keys}, {head_dim}]>" for name, keys in blocks.items()}
            types |= dict.fromkeys(("q_ptr", "weight_ptr", "out_ptr"), f"*{element}")
            sizes = ("num_frames", "frame_tokens", "frame_tiles", "text_keys", "image_keys", "audio_keys")
            types |= dict.fromkeys((*sizes, "text_sharers", "image_sharers"), "i32") | {"scale": "fp32"}
            constants = {"HAS_WEIGHT": has_weight, "DIM": 12 * head_dim, "HEAD_DIM": head_dim} | chosen
            name = f"cross_attention {element} head {head_dim}{' weighted' if has_weight else ''}"
            found.append(Variant(name=name, kernel=cross_attention_kernel, types=types, constants=constants, tensor_cores=True))
    return found
