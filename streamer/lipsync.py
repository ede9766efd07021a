"""`livemimic render --task lipsync`: the lips of a video redone for another voice, everything else left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import av
import numpy as np
from PIL import Image
from tqdm import tqdm

from model.follow import EVERY, follow_face, steady_framings
from model.framing import Framing, crop
from model.paste import paste_mouth
from streamer.spoken import spoken_frames
from streamer.video_file import VideoClip

if TYPE_CHECKING:
    from model.pipeline import AvatarPipeline

_LOOK_SIDE = 640  # pictures are reduced to this where only the face's place is wanted
_CANDIDATES = 24
_PIXELS_A_TURN = 1.5  # of a dropped jaw that weigh as much as a pose one unit of the controls away


class FramedClip:
    """A clip and where its face is in every frame."""

    def __init__(self, clip: VideoClip) -> None:
        """Raises PortraitError where there is no face."""
        self.clip = clip
        share = min(1.0, _LOOK_SIDE / max(clip.width, clip.height))
        looks = tqdm(range(0, len(clip.frames), EVERY), desc="find face", unit="look", disable=None)
        framings = steady_framings(follow_face(self._rgb(index, share) for index in looks), len(clip.frames))
        self._framings = [Framing(f.left / share, f.top / share, f.size / share) for f in framings]

    def framing(self, shown: int) -> Framing:
        return self._framings[self.clip.there_and_back(shown)]

    def portraits(self, shown: list[int]) -> np.ndarray:
        """The faces as the model takes them, uint8 RGB [N, 256, 256, 3]."""
        return np.stack([np.array(crop(self._rgb(self.clip.there_and_back(i), 1.0), self.framing(i))) for i in shown])

    def _rgb(self, index: int, share: float) -> Image.Image:
        # Untagged, planes are read as the generated ones are written, whatever the file says: so back and forth nothing shifts.
        frame = av.VideoFrame.from_ndarray(self.clip.frames[index], format="yuv420p")
        wanted = {"width": round(self.clip.width * share), "height": round(self.clip.height * share)}
        return Image.fromarray(frame.reformat(format="rgb24", **wanted).to_ndarray())


def spoken_from(jaw_drops: np.ndarray, poses: np.ndarray) -> int:
    """Which of a clip's pictures is its portrait: lips closed, and the head as it mostly is, for what a turned one hides is not known."""
    away = np.linalg.norm(poses - np.median(poses, axis=0), axis=1)
    return int((jaw_drops + _PIXELS_A_TURN * away).argmin())


def lipsync_frames(pipeline: AvatarPipeline, framed: FramedClip, sound: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """I420 frames of the clip's size, one for every 40 ms of sound; a clip that is too short is shown there and back again."""
    clip, chunk = framed.clip, pipeline.geometry.chunk_frames
    candidates = np.unique(np.linspace(0, len(clip.frames) - 1, _CANDIDATES).round().astype(int)).tolist()
    faces = framed.portraits(candidates)
    portrait = faces[spoken_from(*pipeline.jaws_and_poses(faces))]
    state = pipeline.open_lipsync(portrait, lambda first: framed.portraits(list(range(first, first + chunk))), seed=seed)
    for shown, drawn in enumerate(spoken_frames(pipeline, state, sound)):
        yield paste_mouth(np.asarray(clip.frames[clip.there_and_back(shown)]), drawn, framed.framing(shown))
