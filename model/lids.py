"""How lids close: the network finds where a portrait's eyes are open, and skin is drawn down over them, lashes first.

It is the person's own skin, under the portrait's own light: the strip above the eye, stretched. Where a low brow leaves none, or its
shadow, as on many photographs, the skin below is mirrored into it; a brow that came down with the lid looked like a black eye.
Legend: B portraits, F video frames (those of each portrait in a row), p planes, H W pixels, h of them the rows that lids can be in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from model.motion import fetch

# Where the framing puts eyes, with room for those of others: rows and columns as shares of the picture.
_AROUND_EYES = (0.27, 0.53, 0.22, 0.78)
_LID_ROWS = (0.2, 0.56)  # with the skin above
_SLANT = 0.02  # of the picture's height: how far above its mean an eye may be at one of its ends
_LIKELY = 0.75  # added to a logit: a lid that stops half way is worse than one that goes a little too far
# Skin above an eye that is stretched over it, as a share of the opening and in pixels: half of it at least, or it would have to fold, and
# little more, for where a brow is low it is next.
_STRIP, _LEAST_STRIP = 0.5, 2.0
# A lid's skin may be taken from below, where a brow or its shadow is all there is above: the darkest above has then less than _DARK of
# the luma below (98 rendered people 0.51 to 0.81, five of six photographs 0.27 to 0.47). Where it is below, and the edge of a lid with its
# lashes, in openings of the eye; what is left of the strip above; how much is from below.
_DARK, _SKIN, _LASHES, _THIN, _BLEND = 0.5, (1.25, 1.8), 0.16, 0.35, 0.6
_BEYOND = 0.6  # pixels: the edge of the lower lid, too, is under a closed one
# A lid comes down a little ahead of its closure: at 0.1, 0.3, 0.5 and 0.7 it is 0.14, 0.37, 0.59 and 0.80 of the way down. So a
# tracker sees blinks last as long as the renderer's, 121 ms for 122 through the autoencoder (34 blinks of people it was trained on).
_MEET, _AHEAD = 0.9, 0.9


class Lids(NamedTuple):
    """Of every column of the pictures, in pixels: the row in which an eye begins, how far a closed lid comes down from there, 0 where there
    is no eye, and how much skin above is stretched for it; and 1 where the skin below is taken instead; each [B, W]."""

    top: Tensor
    reach: Tensor
    strip: Tensor
    below: Tensor

    @staticmethod
    def cat(lids: Sequence[Lids]) -> Lids:
        return Lids(*(torch.cat(parts) for parts in zip(*lids, strict=True)))

    def halved(self) -> Lids:
        """The same in pictures of half the size."""
        top, reach, strip = (F.avg_pool1d(part[:, None], 2)[:, 0] / 2.0 for part in self[:3])
        return Lids(top - 0.25, reach, strip, self.below[:, ::2])  # rows are counted at their middles


def lids_of(eyes_BHW: Tensor) -> Lids:
    """The edges of the eyes' openings, from logits of where an eyeball shows. Sums over columns place an edge between pixels."""
    height, width = eyes_BHW.shape[1:]
    first, last, left, right = (round(share * side) for share, side in zip(_AROUND_EYES, (height, height, width, width), strict=True))
    shows = torch.zeros_like(eyes_BHW)
    shows[:, first:last, left:right] = torch.sigmoid(2.0 * (eyes_BHW[:, first:last, left:right] + _LIKELY))
    shows = shows * _lowest(shows)
    rows = torch.arange(height, device=eyes_BHW.device, dtype=eyes_BHW.dtype)[:, None]
    sums = torch.stack((shows.sum(dim=1), (shows * rows).sum(dim=1)), dim=1)
    opening, moment = F.avg_pool1d(sums, 5, stride=1, padding=2, count_include_pad=False).unbind(1)
    middle = moment / opening.clamp(min=1e-3)
    opening = opening * _level(middle, opening, height)
    top = middle - opening / 2.0
    reach = opening + _BEYOND * opening / (opening + 1.0)
    return Lids(top, reach, _STRIP * opening + _LEAST_STRIP, torch.zeros_like(top))


@torch.no_grad()
def _lowest(shows_BHW: Tensor) -> Tensor:
    """1 in the lowest of what shows in a column, and 0 above: what shows there again is a brow, taken for an eye."""
    upwards = F.avg_pool2d(shows_BHW, (1, 5), stride=1, padding=(0, 2)).flip(1)
    ended = (upwards.cummax(dim=1).values > 0.5) & (upwards < 0.2)
    return 1.0 - ended.to(shows_BHW).cummax(dim=1).values.flip(1)


@torch.no_grad()
def _level(middle_BW: Tensor, opening_BW: Tensor, height: int) -> Tensor:
    """1 in columns that are about as high as the rest of their eye, the left or right one, and 0 in those above: the end of a brow."""
    middle, opening = (x.unflatten(1, (2, -1)) for x in (middle_BW, opening_BW))
    mean = (middle * opening).sum(dim=2, keepdim=True) / opening.sum(dim=2, keepdim=True).clamp(min=1e-3)
    return (middle > mean - _SLANT * height).to(middle).flatten(1)


def skinned(lids: Lids, pictures_B3HW: Tensor) -> Lids:
    """With the side that each face's lids take their skin from: below where a brow, or its shadow, is all there is above."""
    luma = pictures_B3HW.float().mean(dim=1, keepdim=True) / 2.0 + 0.5
    above = _between(luma, lids.top - lids.strip, lids.top - 1.0).amin(dim=1)
    below = _between(luma, *(lids.top + lids.reach * share for share in _SKIN)).mean(dim=1)
    darker = ((above * lids.reach).sum(dim=1) < _DARK * (below * lids.reach).sum(dim=1))[:, None]
    return lids._replace(strip=torch.where(darker, _THIN * lids.strip, lids.strip), below=darker.expand_as(lids.top).to(lids.top))


def _between(luma_B1HW: Tensor, first_BW: Tensor, last_BW: Tensor) -> Tensor:
    """Each column at a few places between two rows [B, places, W]."""
    height, width = luma_B1HW.shape[2:]
    share = torch.linspace(0.0, 1.0, 8, device=luma_B1HW.device)[:, None]
    rows = (torch.lerp(first_BW[:, None], last_BW[:, None], share) + 0.5) * 2.0 / height - 1.0
    columns = ((torch.arange(width, device=rows.device) + 0.5) * 2.0 / width - 1.0).expand_as(rows)
    return F.grid_sample(luma_B1HW, torch.stack((columns, rows), dim=-1), padding_mode="border", align_corners=False)[:, 0]


def with_lids(planes_BpHW: Tensor, lids: Lids, blink_F: Tensor) -> Tensor:
    """The portraits' planes with lids closed by `blink`, frames of each portrait in a row [F, p, H, W]; `lids` of pictures of that size."""
    frames, height = len(blink_F) // len(planes_BpHW), planes_BpHW.shape[2]
    first, last = (round(share * height) for share in _LID_ROWS)
    drawn_on = planes_BpHW.repeat_interleave(frames, 0).float()
    drawn_on[:, :, first:last] = _closed(planes_BpHW[:, :, first:last], lids._replace(top=lids.top - first), blink_F)
    return drawn_on


def _closed(planes_BphW: Tensor, lids: Lids, blink_F: Tensor) -> Tensor:
    """The same for the rows that lids can be in."""
    frames = len(blink_F) // len(planes_BphW)
    top, reach, strip, below = (part.repeat_interleave(frames, 0)[:, None] for part in lids)
    down = reach * (blink_F / _MEET).clamp(0.0, 1.0).pow(_AHEAD)[:, None, None]
    row = torch.arange(planes_BphW.shape[2], device=planes_BphW.device, dtype=top.dtype)[:, None]
    # 0 at the edge of the lid, 1 where skin stays. At both ends it is as high as it was, lashes too; between them it is stretched.
    up = ((top + down - row) / (strip + down)).clamp(0.0, 1.0)
    stretch = ((strip + down) / strip).clamp(max=3.0)  # or it would fold
    source = top - strip * up * (stretch + up * (3.0 - 3.0 * stretch + up * (2.0 * stretch - 2.0)))
    drawn = _from_rows(planes_BphW, torch.where(up < 1.0, source, row))
    if below.any():
        first, last = (reach * share for share in _SKIN)
        mirrored = _from_rows(planes_BphW, top + first + (top + reach - row) * (last - first) / reach.clamp(min=1.0))
        edge = _LASHES * reach.clamp(min=1.0)
        share = _BLEND * below * ((row - top) / (2.0 * edge)).clamp(0.0, 1.0) * ((top + down - row) / edge - 0.5).clamp(0.0, 1.0)
        drawn = torch.lerp(drawn, mirrored, share[:, None].expand_as(drawn))
    cover = ((top + down - row + 0.5).clamp(0.0, 1.0) * (down > 0))[:, None]
    return torch.lerp(planes_BphW.repeat_interleave(frames, 0).float(), drawn, cover.expand_as(drawn))


def _from_rows(planes_BphW: Tensor, rows_FhW: Tensor) -> Tensor:
    """Each pixel from another row of its column, float32."""
    row = torch.arange(planes_BphW.shape[2], device=rows_FhW.device, dtype=rows_FhW.dtype)[:, None]
    # A motion as large as the planes.
    return fetch(planes_BphW, 2.0 * torch.stack((torch.zeros_like(rows_FhW), rows_FhW - row), dim=1)).float()
