"""What the face does besides speaking: head sway, blinks, gaze, brows, smile, as one vector a video frame.

The network takes these as explicit conditions, because few-step sampling keeps whatever is conditioned on and loses whatever it
would have to invent: without them a distilled student stops blinking. The controller is a stateless function of the frame
index (hashed value noise), so that an interrupt can rewind it and a seed reproduces it; only the smoothed activity is state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from model.manner import Manner

CONTROL_NAMES = ("yaw", "pitch", "roll", "x", "y", "blink", "gaze_x", "gaze_y", "brow", "smile")
NUM_CONTROLS = len(CONTROL_NAMES)
# Physical size of control value 1.0: radians for angles, head sizes for shifts, expression weight for the rest.
CONTROL_UNITS = np.array([0.16, 0.10, 0.06, 0.04, 0.025, 1.0, 0.20, 0.12, 1.0, 1.0], dtype=np.float32)

_FPS = 25.0
# Octaves of the head motion: (frequency in Hz, amplitude). Slow sway, posture shifts, a little life on top.
_SWAY = ((0.11, 0.55), (0.27, 0.40), (0.61, 0.16))
_BREATH_HZ = 0.26
_BLINK_SLOT_S = 3.6
_GAZE_SLOT_S = 1.9
_ACTIVITY_TAU_S = 0.35
_NOD_HZ, _SHAKE_HZ = 0.9, 0.8
_REST_SMILE = 0.15


@dataclass(frozen=True, slots=True)
class ControllerState:
    """Position in the motion of one session, and what its prompt asks for. `speaking` and `listening` are smoothed to 0..1."""

    seed: int
    frame: int = 0
    speaking: float = 0.0
    listening: float = 0.0
    manner: Manner = Manner()


def neutral_controls() -> np.ndarray:
    """Looking at the viewer, a hint of a smile: how portraits are taken; float32 [NUM_CONTROLS]."""
    neutral = np.zeros(NUM_CONTROLS, dtype=np.float32)
    neutral[CONTROL_NAMES.index("smile")] = _REST_SMILE
    return neutral


def _hash_unit(seed: int, stream: int, index: np.ndarray) -> np.ndarray:
    """Uniform values in [0, 1) from integer lattice positions (splitmix64), the same on every machine."""
    with np.errstate(over="ignore"):
        z = index.astype(np.int64).astype(np.uint64) + np.uint64((seed * 0x9E3779B9 + stream * 0x85EBCA6B) & (2**63 - 1))
        z = (z + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)


def _value_noise(seed: int, stream: int, position: np.ndarray) -> np.ndarray:
    """Smooth noise with unit-spaced lattice, zero mean, standard deviation about 0.8."""
    base = np.floor(position)
    u = position - base
    u = u * u * u * (u * (u * 6.0 - 15.0) + 10.0)
    low = _hash_unit(seed, stream, base) * 2.0 - 1.0
    high = _hash_unit(seed, stream, base + 1) * 2.0 - 1.0
    return (low + (high - low) * u) * 1.6


def _blink(seed: int, time_s: np.ndarray) -> np.ndarray:
    """Lid closure 0..1: one blink at a random moment of every slot, 40 ms down, 60 ms shut, 100 ms up, one in six doubled."""
    slot = np.floor(time_s / _BLINK_SLOT_S)
    closure = np.zeros_like(time_s)
    for back in (0, 1):
        index = slot - back
        start = (index + 0.15 + 0.7 * _hash_unit(seed, 101, index)) * _BLINK_SLOT_S
        closure = np.maximum(closure, _blink_shape(time_s - start))
        doubled = _hash_unit(seed, 102, index) < 1 / 6
        closure = np.maximum(closure, np.where(doubled, _blink_shape(time_s - start - 0.30), 0.0))
    return closure


def _blink_shape(t: np.ndarray) -> np.ndarray:
    return np.clip(np.minimum(t / 0.06, (0.22 - t) / 0.12), 0.0, 1.0)


def _gaze(seed: int, stream: int, time_s: np.ndarray) -> np.ndarray:
    """Saccades: mostly at the viewer, sometimes a glance aside; the eye jumps within about 40 ms."""
    slot = np.floor(time_s / _GAZE_SLOT_S)

    def target(index: np.ndarray) -> np.ndarray:
        aside = _hash_unit(seed, 110, index) < 0.22
        offset = _hash_unit(seed, stream, index) * 2.0 - 1.0
        return np.where(aside, offset, offset * 0.12)

    blend = np.clip((time_s - slot * _GAZE_SLOT_S) / 0.05, 0.0, 1.0)
    return target(slot - 1) * (1.0 - blend) + target(slot) * blend


def next_controls(state: ControllerState, num_frames: int, activity: str) -> tuple[np.ndarray, ControllerState]:
    """Controls float32 [num_frames, NUM_CONTROLS] (unitless, about -1..1) from `state.frame` on, and the state after them."""
    decay = np.exp(-np.arange(1, num_frames + 1) / (_FPS * _ACTIVITY_TAU_S))
    speaking = float(activity == "speaking") + (state.speaking - float(activity == "speaking")) * decay
    listening = float(activity == "listening") + (state.listening - float(activity == "listening")) * decay
    time_s = (state.frame + np.arange(num_frames)) / _FPS
    out = np.zeros((num_frames, NUM_CONTROLS), dtype=np.float64)
    energy = 0.55 + 0.45 * speaking
    for column in range(5):
        for octave, (freq, amplitude) in enumerate(_SWAY):
            noise = _value_noise(state.seed, column * 8 + octave, time_s * freq)
            out[:, column] += amplitude * noise * energy
    out[:, 4] += 0.25 * np.sin(2 * np.pi * _BREATH_HZ * time_s + state.seed)
    # A listener nods: slow, small, now and then.
    nod_gate = np.clip(_value_noise(state.seed, 120, time_s * 0.3) - 0.2, 0.0, 1.0)
    out[:, 1] += listening * nod_gate * 0.9 * np.sin(2 * np.pi * 1.4 * time_s)
    out[:, 5] = _blink(state.seed, time_s)
    out[:, 6] = _gaze(state.seed, 111, time_s)
    out[:, 7] = 0.6 * _gaze(state.seed, 112, time_s)
    out[:, 8] = 0.12 * _value_noise(state.seed, 60, time_s * 0.4) + 0.15 * speaking * _value_noise(state.seed, 61, time_s * 0.9)
    out[:, 9] = np.clip(0.16 + 0.10 * _value_noise(state.seed, 62, time_s * 0.08), 0.0, 1.0)
    after = replace(
        state, frame=state.frame + num_frames, speaking=float(speaking[-1]), listening=float(listening[-1])
    )
    return _in_manner(out, state.manner, time_s).astype(np.float32), after


def _in_manner(controls: np.ndarray, manner: Manner, time_s: np.ndarray) -> np.ndarray:
    out = controls.copy()
    out[:, :5] *= manner.liveliness
    out[:, 0] += manner.yaw + manner.shake * np.sin(2 * np.pi * _SHAKE_HZ * time_s)
    out[:, 1] += manner.pitch + manner.nod * np.sin(2 * np.pi * _NOD_HZ * time_s)
    for column, amount in ((6, manner.gaze_x), (7, manner.gaze_y), (8, manner.brow), (9, manner.smile)):
        out[:, column] += amount
    out[:, 9] = out[:, 9].clip(0.0, 1.0)
    return out
