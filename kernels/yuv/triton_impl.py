"""One program a run of 2x2 blocks of one picture: each pixel is read once and serves luma and chroma."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import TYPE_NAMES, Variant, check_launch
from kernels.tuning import Parameters, parameters
from kernels.yuv import MATRIX, OFFSET, SWING

DEFAULTS: dict[str, Parameters] = {"picture": {"BLOCK": 512, "num_warps": 4}}  # BLOCK: 2x2 blocks a program
PARAMETERS = parameters("yuv", DEFAULTS)
# The formula's numbers as the constants of the kernel, KR ... the row of U and so on, studio swing included.
_ROWS = dict(zip("YUV", (tuple(c * swing for c in row) for row, swing in zip(MATRIX, SWING, strict=True)), strict=True))
COEFFICIENTS = {f"{plane}{colour}": value for plane, row in _ROWS.items() for colour, value in zip("RGB", row, strict=True)}


@triton.jit
def _to_byte(x):
    """Rounded half to even, as torch does: adding 1.5 * 2^23 leaves no bits for a fraction."""
    return (x + 12582912.0 - 12582912.0).to(tl.uint8)


@triton.jit
def _pixel(ptr, offset, plane, inside):
    """The three colours of pixels, clamped."""
    r = tl.load(ptr + offset, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(ptr + plane + offset, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(ptr + 2 * plane + offset, mask=inside, other=0.0).to(tl.float32)
    r, g, b = tl.maximum(tl.minimum(r, 1.0), -1.0), tl.maximum(tl.minimum(g, 1.0), -1.0), tl.maximum(tl.minimum(b, 1.0), -1.0)
    return r, g, b


@triton.jit
def i420_kernel(
    rgb_ptr, out_ptr, height, width, YR: tl.constexpr, YG: tl.constexpr, YB: tl.constexpr, UR: tl.constexpr, UG: tl.constexpr,
    UB: tl.constexpr, VR: tl.constexpr, VG: tl.constexpr, VB: tl.constexpr, Y0: tl.constexpr, C0: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    frame = tl.program_id(1).to(tl.int64)
    plane = height * width
    rgb_ptr += frame * 3 * plane
    out_ptr += frame * (plane + plane // 2)
    block = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = block < plane // 4
    row, column = block // (width // 2), block % (width // 2)
    red, green, blue = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for corner in tl.static_range(4):
        offset = (row * 2 + corner // 2) * width + column * 2 + corner % 2
        r, g, b = _pixel(rgb_ptr, offset, plane, inside)
        tl.store(out_ptr + offset, _to_byte(YR * r + YG * g + YB * b + Y0), mask=inside)
        red, green, blue = red + r, green + g, blue + b
    u = (UR * red + UG * green + UB * blue) * 0.25 + C0
    v = (VR * red + VG * green + VB * blue) * 0.25 + C0
    tl.store(out_ptr + plane + block, _to_byte(u), mask=inside)
    tl.store(out_ptr + plane + plane // 4 + block, _to_byte(v), mask=inside)


CONSTANTS = COEFFICIENTS | {"Y0": OFFSET[0], "C0": OFFSET[1]}


def launch(frames: Tensor) -> Tensor:
    """Arguments already checked; see the package."""
    check_launch(frames)
    num, _, height, width = frames.shape
    out = frames.new_empty(num, height * 3 // 2, width, dtype=torch.uint8)
    chosen = PARAMETERS["picture"]
    i420_kernel[(triton.cdiv(height * width // 4, chosen["BLOCK"]), num)](frames, out, height, width, **CONSTANTS, **chosen)
    return out


def variants(case: str, chosen: Parameters) -> list[Variant]:
    found = []
    for element in (TYPE_NAMES[dtype] for dtype in (torch.bfloat16, torch.float16, torch.float32)):
        types = {"rgb_ptr": f"*{element}", "out_ptr": "*u8", "height": "i32", "width": "i32"}
        found.append(Variant(name=f"i420 {element}", kernel=i420_kernel, types=types, constants=CONSTANTS | chosen))
    return found
