"""How a portrait moves with head, eyes, brows and smile: fields made once a session, mixed by every video frame's moves.

Moves are told for every video frame, the transformer answers once in four. What follows from moves alone is therefore not left to
it: a head turns along its own smooth curve, whatever is being said. Lids are drawn, just so, on the portrait before (`model/lids.py`).
Latents only say what is different from the portrait so moved.

Head motion is a displacement of the portrait's points, second order in the moves: a turning head is a rotation, of depths that the network
reads from the picture. Its outline moves otherwise: a ball that turns stays where it was. Expressions are fetched by the moved portrait
from itself. Displacements are in pixels of the picture.
Legend: B portraits, F video frames (those of each portrait in a row), H W pixels of the picture, h w half of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.controls import CONTROL_NAMES
from model.layers import Layers

BLINK = CONTROL_NAMES.index("blink")
NUM_HEAD_CONTROLS = BLINK  # yaw, pitch, roll, x, y come first

PIXELS_PER_UNIT = 8.0  # displacement that a network's output of 1 stands for
NUM_HEAD_TERMS = 11
NUM_TERMS = NUM_HEAD_TERMS + 6
NUM_FIELDS = NUM_TERMS + NUM_HEAD_TERMS  # the last are those of the outline
# The place that a pixel was fetched from is found in rounds, which go half of the way each. Where a turning head uncovers what no point
# moves to, whole steps would jump from one side of the gap to the other, and tear it; half ones end near its edge, which so is stretched.
_SETTLE, _HALF = 6, 0.5


def terms(moves_FM: Tensor) -> Tensor:
    """What fields are mixed by [F, NUM_TERMS], from moves [F, NUM_CONTROLS] (controls less the portrait's own); nothing of none."""
    yaw, pitch, roll, x, y, _, gaze_x, gaze_y, brow, smile = moves_FM.unbind(1)
    head = (yaw, pitch, roll, x, y, yaw * yaw, pitch * pitch, roll * roll, yaw * pitch, yaw * roll, pitch * roll)
    # Lids are drawn. Brows lift and frown differently.
    face = (gaze_x, gaze_y, brow.clamp(min=0), brow.clamp(max=0), smile, smile * smile.abs())
    return torch.stack((*head, *face), dim=1)


class Sources(NamedTuple):
    """Where each pixel is fetched from, as displacements [F, 2, h, w]: the person, and, beyond that, its outline."""

    person: Tensor
    outline: Tensor


class Motion(NamedTuple):
    """How portraits move: where the head takes each of their points, where each pixel of the picture is fetched from to undo that, as
    displacements [F, 2, h, w], and, in the portrait's own place, where expressions fetch from, with the outline that a turned head has."""

    shift: Tensor
    head: Tensor
    within: Sources

    def total(self, further_F2hw: Tensor | float = 0.0) -> Sources:
        """Where each pixel of the picture comes from, with what an expression fetches from further."""
        person, outline = fetch(torch.cat((self.within.person + further_F2hw, self.within.outline), dim=1), self.head).split(2, dim=1)
        return Sources(self.head + person, outline)


class Moved(NamedTuple):
    """The portraits with their lids drawn on the person [F, 3, H, W], and how the person moves."""

    layers: Layers
    motion: Motion

    def shown(self) -> Tensor:
        return move_layers(self.layers, self.motion.total())

    def in_place(self, frames_F3HW: Tensor) -> Tensor:
        """Frames beside what is told of them, both with the head where the portrait has it [F, 6, H, W]."""
        return torch.cat((fetch(frames_F3HW, self.motion.shift), move_layers(self.layers, self.motion.within)), dim=1)


def portrait_motion(fields_BKchw: Tensor, moves_FM: Tensor) -> Motion:
    mixed_by = terms(moves_FM.float()).unflatten(0, (len(fields_BKchw), -1))
    head, face = slice(NUM_HEAD_TERMS), slice(NUM_HEAD_TERMS, NUM_TERMS)
    # A point goes to q + d(q); the one seen at p is the q with q = p - d(q).
    displacement = torch.einsum("bfk,bkchw->bfchw", mixed_by[:, :, head], fields_BKchw[:, head]).flatten(0, 1)
    head_motion = -displacement
    for _ in range(_SETTLE):
        head_motion = torch.lerp(head_motion, -fetch(displacement, head_motion), _HALF)
    # Beside such a gap each pixel falls on one side or the other, in steps of this grid: smoothed, the outline of a jaw is a line again.
    head_motion = F.avg_pool2d(head_motion, 3, stride=1, padding=1, count_include_pad=False)
    expression = torch.einsum("bfk,bkchw->bfchw", mixed_by[:, :, face], fields_BKchw[:, face]).flatten(0, 1)
    outline = torch.einsum("bfk,bkchw->bfchw", mixed_by[:, :, head], fields_BKchw[:, NUM_TERMS:]).flatten(0, 1)
    return Motion(displacement, head_motion, Sources(expression, outline))


def fetch(planes_BpHW: Tensor, motion_F2hw: Tensor) -> Tensor:
    """Planes of a picture, each pixel fetched from where the motion says [F, p, H, W], frames of each picture in a row.

    Motion counts in pixels of a picture twice its own size, whatever size the planes have.
    """
    height, width = motion_F2hw.shape[2:]
    motion = motion_F2hw * motion_F2hw.new_tensor([1.0 / width, 1.0 / height])[:, None, None]
    rows, columns = planes_BpHW.shape[2:]
    if (height, width) != (rows, columns):
        motion = F.interpolate(motion, size=(rows, columns), mode="bilinear", align_corners=False)
    sources = motion + pixel_grid(rows, columns, motion.device).movedim(-1, 0)
    repeated = planes_BpHW[:, None].expand(-1, len(sources) // len(planes_BpHW), -1, -1, -1).flatten(0, 1)
    return F.grid_sample(repeated.float(), sources.movedim(1, -1), padding_mode="border", align_corners=False).to(planes_BpHW.dtype)


def move_layers(layers: Layers, sources: Sources) -> Tensor:
    """People and their outlines fetched from where they come from, over their backdrops, which stay [F, p, H, W]."""
    planes, times = layers.person.shape[1], len(layers.person) // len(layers.matte)
    both = torch.cat((layers.matte, layers.endless.float()), dim=1).repeat_interleave(times, 0)
    moved = fetch(torch.cat((layers.person.float(), both), dim=1), sources.person)  # one fetch: half of its work is where
    person, matte, endless = moved.split((planes, 1, planes), dim=1)
    return layers.shown(person, matte, endless, fetch(layers.matte, sources.person + sources.outline))


def pixel_grid(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each pixel is, in grid_sample's coordinates [H, W, 2], x before y."""
    y = (torch.arange(rows, device=device) + 0.5) * 2.0 / rows - 1.0
    x = (torch.arange(columns, device=device) + 0.5) * 2.0 / columns - 1.0
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
