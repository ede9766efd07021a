"""What is seen in a portrait once a session: where eyes and person are, and how each of its points moves with head, eyes, brows and smile.

Nothing here is done for a frame, so the networks are as large as they need to be. How a head moves is its shape: it takes a look at
the whole picture, and at the edge where hair passes a cheek.
Legend: B portraits, H W pixels of the picture, h w half of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VAEConfig
from model.motion import NUM_FIELDS, PIXELS_PER_UNIT, pixel_grid

_NOTHING = -5.0  # logit of an untrained finder


def start_at_zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        start_at_zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(F.silu(x))))


class EyeFinder(nn.Module):
    """A portrait and its features to logits of its eyes [B, H, W]."""

    WIDTH = 32

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        fine, middle, coarse = config.widths
        width = self.WIDTH
        self.coarse = nn.Conv2d(coarse, width, 3, padding=1)
        self.middle = nn.Conv2d(middle + width, width, 3, padding=1)
        self.fine = nn.Conv2d(fine + width + 5, width, 3, padding=1)
        self.join = nn.Conv2d(width, width, 3, padding=1)
        last = nn.Conv2d(width, 16, 1)
        start_at_zero(last)
        # It looks at the picture itself, too: the features are for rendered people, and no photograph is like them.
        self.eyes = nn.Sequential(
            nn.Conv2d(width + 3 * 16, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=2, dilation=2), nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4), nn.SiLU(), last,
        )  # fmt: skip

    def forward(self, picture_B3HW: Tensor, fine_Bchw: Tensor, middle_Bchw: Tensor, coarse_Bchw: Tensor) -> Tensor:
        x = F.silu(self.coarse(F.silu(coarse_Bchw)))
        x = F.silu(self.middle(torch.cat((F.silu(middle_Bchw), F.interpolate(x, scale_factor=2.0)), dim=1)))
        x = F.silu(self.fine(torch.cat((F.silu(fine_Bchw), F.interpolate(x, scale_factor=2.0), places(fine_Bchw)), dim=1)))
        x = F.silu(self.join(x))
        looked_at = torch.cat((x, F.pixel_unshuffle(picture_B3HW.to(x.dtype), 4)), dim=1)
        return F.pixel_shuffle(self.eyes(looked_at), 4)[:, 0].float() + _NOTHING


class UNet(nn.Module):
    """Planes of a picture's size [B, p, H, W] to features [B, c, H/4, W/4].

    Down to 1/32 of the picture and up again, with what was seen on the way (U-Net, arXiv 1505.04597).
    """

    def __init__(self, planes: int, widths: tuple[int, ...]) -> None:
        """Widths at 1/4, 1/8, 1/16 and 1/32."""
        super().__init__()
        pairs = list(zip(widths, widths[1:], strict=False))
        self.stem = nn.Conv2d(planes * 16 + 5, widths[0], 3, padding=1)
        self.seen = nn.ModuleList(Residual(width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(finer, coarser, 3, stride=2, padding=1) for finer, coarser in pairs)
        self.up = nn.ModuleList(nn.Conv2d(coarser, finer, 1) for finer, coarser in pairs)
        self.join = nn.ModuleList(Residual(finer) for finer, _ in pairs)

    def features(self, planes_BpHW: Tensor) -> Tensor:
        looked_at = F.pixel_unshuffle(planes_BpHW, 4)
        x = self.stem(torch.cat((looked_at, places(looked_at)), dim=1))
        passed = []
        for seen, down in zip(self.seen, self.down, strict=False):
            x = seen(x)
            passed.append(x)
            x = down(F.silu(x))
        x = self.seen[-1](x)
        for join, up, finer in zip(reversed(self.join), reversed(self.up), reversed(passed), strict=True):
            x = join(finer + F.interpolate(up(F.silu(x)), scale_factor=2.0))
        return F.silu(x)


class PersonFinder(UNet):
    """A portrait to logits of the person [B, H, W]; nobody when untrained.

    What is told about a place comes from a quarter of the size; the picture at its own says where in it hair ends.
    """

    WIDTHS = (48, 64, 96, 96)
    FINE = 8

    def __init__(self) -> None:
        super().__init__(3, self.WIDTHS)
        self.told = nn.Conv2d(self.WIDTHS[0], 16 * self.FINE, 1)
        last = nn.Conv2d(2 * self.FINE, 1, 3, padding=1)
        start_at_zero(last)
        self.edge = nn.Sequential(
            nn.Conv2d(3 + self.FINE, 2 * self.FINE, 3, padding=1), nn.SiLU(),
            nn.Conv2d(2 * self.FINE, 2 * self.FINE, 3, padding=1), nn.SiLU(), last,
        )  # fmt: skip

    def forward(self, picture_B3HW: Tensor) -> Tensor:
        told = F.pixel_shuffle(self.told(self.features(picture_B3HW)), 4)
        return self.edge(torch.cat((picture_B3HW.to(told.dtype), told), dim=1))[:, 0].float() + _NOTHING


class MotionFields(UNet):
    """A portrait and its matte [B, 1, H, W] to its fields [B, NUM_FIELDS, 2, h, w], in pixels; none when untrained."""

    WIDTHS = (64, 96, 128, 128)

    def __init__(self) -> None:
        super().__init__(4, self.WIDTHS)
        # Where a point is says most of how it turns: a roll is the place itself, turned by ninety degrees.
        self.out = nn.Conv2d(self.WIDTHS[0] + 5, 4 * 2 * NUM_FIELDS, 1)
        start_at_zero(self.out)

    def forward(self, picture_B3HW: Tensor, matte_B1HW: Tensor) -> Tensor:
        x = self.features(torch.cat((picture_B3HW, matte_B1HW.to(picture_B3HW.dtype)), dim=1))
        fields = F.pixel_shuffle(self.out(torch.cat((x, places(x)), dim=1)), 2)
        return fields.unflatten(1, (NUM_FIELDS, 2)).float() * PIXELS_PER_UNIT


def places(like_Bchw: Tensor) -> Tensor:
    """x, y and their products at every pixel [B, 5, h, w]."""
    x, y = pixel_grid(like_Bchw.shape[2], like_Bchw.shape[3], like_Bchw.device).unbind(-1)
    return torch.stack((x, y, x * x, y * y, x * y)).to(like_Bchw.dtype).expand(len(like_Bchw), -1, -1, -1)
