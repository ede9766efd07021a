"""What is known of a video, as the transformer is told it: mask channels and the latents of the masked video.

The mask picks the task: first frame known (picture to video), first and last, the first n (continuation), or everything but a
region (lip sync). Legend: B batch, F video frames, H W pixels, T latent frames, h w latent pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from model.echomimic.vae import FRAMES_PER_LATENT, WanVAE


def resized(picture: Image.Image, width: int, height: int) -> np.ndarray:
    """The whole picture at exactly this size, uint8 [H, W, 3]; what flooring does to the aspect is accepted."""
    return np.array(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))


def to_unit(pixels_u8: np.ndarray) -> Tensor:
    """Pictures uint8 [F, H, W, 3] to video in [-1, 1], [1, 3, F, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(pixels_u8)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def to_bytes(video_01: Tensor) -> Tensor:
    """Values in 0..1 to 0..255 by truncation, as the release writes and passes on frames."""
    return (video_01.float() * 255).to(torch.uint8)


def known_video(frames_13KHW: Tensor, index: list[int], num_frames: int) -> tuple[Tensor, Tensor]:
    """A video that holds the known frames at their places, mid grey elsewhere, and its mask [1, 1, F, H, W], 1 = known."""
    rows, columns = frames_13KHW.shape[3:]
    video, mask = torch.zeros(1, 3, num_frames, rows, columns), torch.zeros(1, 1, num_frames, rows, columns)
    video[:, :, index], mask[:, :, index] = frames_13KHW, 1.0
    return video, mask


def masked_conditioning(vae: WanVAE, video_B3FHW: Tensor, known_B1FHW: Tensor) -> Tensor:
    """y [B, 4 + 16, T, h, w]; all zeros where nothing is known at all."""
    known = (known_B1FHW > 0.5).to(video_B3FHW)
    latents = vae.encode(video_B3FHW * known)
    mask = mask_channels(known, latents.shape[3], latents.shape[4])
    y = torch.cat((mask.to(latents), latents), dim=1)
    return y if bool(known.any()) else torch.zeros_like(y)


def mask_channels(known_B1FHW: Tensor, height: int, width: int) -> Tensor:
    """One channel for each video frame of a latent frame, the first frame standing for four: [B, 4, T, h, w]."""
    first, rest = known_B1FHW[:, :, :1], known_B1FHW[:, :, 1:]
    groups = torch.cat((first.repeat(1, 1, FRAMES_PER_LATENT, 1, 1), rest), dim=2)[:, 0].unflatten(1, (-1, FRAMES_PER_LATENT))
    channels = groups.transpose(1, 2)
    # The first latent frame is resized alone, so that it does not mix with the others.
    parts = [part for part in (channels[:, :, :1], channels[:, :, 1:]) if part.shape[2]]
    return torch.cat(
        [F.interpolate(part, size=(part.shape[2], height, width), mode="trilinear", align_corners=False) for part in parts], dim=2
    )
