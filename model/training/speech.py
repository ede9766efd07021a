"""Synthetic speech with known phones: flite's voices for English, espeak-ng for every other language and voice quality.

All phone sets become one inventory, the 39 CMU phones plus SIL, because only the mouth's shape matters. Deterministic for a seed.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from model.geometry import MODEL_RATE
from model.training.sentences import OTHER_LANGUAGES, english_sentence, foreign_sentence

Phone = tuple[str, float, float]
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
PHONES = [
    "SIL", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY", "F", "G", "HH", "IH", "IY", "JH", "K",
    "L", "M", "N", "NG", "OW", "OY", "P", "R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH",
]  # fmt: skip

# espeak's IPA symbols by the mouth shape nearest to a CMU phone; the first matching letter of a phoneme name decides.
_IPA = {
    "SIL": "", "AA": "ɑɒaɐä", "AE": "æ", "AH": "ʌəɜɘ", "AO": "ɔ", "B": "bɓ", "CH": "", "D": "dɖ", "DH": "ð", "EH": "ɛ", "ER": "ɚɝ",
    "EY": "e", "F": "fɸ", "G": "ɡg", "HH": "hɦxχħʜɣʁʕ", "IH": "ɪɨ", "IY": "i", "K": "kqcɟ", "L": "lɫɭʎɬɮ", "M": "mɱ",
    "N": "nɲɳ", "NG": "ŋɴ", "OW": "oɤ", "P": "p", "R": "rɹɾɻʀɽ", "S": "sɕ", "SH": "ʃʂ", "T": "tʈʔ", "TH": "θ", "UH": "ʊ",
    "UW": "uʉɯ", "V": "vʋβ", "W": "wʍɥ", "Y": "jʝ", "Z": "zʑ", "ZH": "ʒʐ", "ROUND_I": "yʏøœɵ",
}  # fmt: skip
_IPA_TO_CMU = {letter: ("UW" if cmu == "ROUND_I" else cmu) for cmu, letters in _IPA.items() for letter in letters}
_FLITE_TO_CMU = {"PAU": "SIL", "AX": "AH", "SSIL": "SIL", "H#": "SIL", "AXR": "ER"}


@dataclass(frozen=True, slots=True)
class Utterance:
    """samples float32 [n] in [-1, 1] at 16 kHz; phones cover it without holes: (label, start in s, end in s)."""

    samples: np.ndarray
    phones: list[Phone]
    voice: str


def synthesise(seed: int) -> Utterance:
    """One to three sentences with pauses around them, 3 to 9 s."""
    rng = np.random.default_rng([seed, 99])
    if rng.random() < 0.6:
        voice = FLITE_VOICES[rng.integers(len(FLITE_VOICES))]
        pieces = [_flite(voice, english_sentence(rng), rng) for _ in range(int(rng.integers(1, 3)))]
    else:
        language = str(rng.choice(["en-us", "en", *OTHER_LANGUAGES]))
        voice = f"{language}+{rng.choice(['m1', 'm3', 'm7', 'f1', 'f2', 'f4', 'f5'])}"
        english = language.startswith("en")
        texts = [english_sentence(rng) if english else foreign_sentence(language, rng) for _ in range(int(rng.integers(1, 3)))]
        pieces = [_espeak(voice, text, int(rng.integers(130, 200)), int(rng.integers(30, 70))) for text in texts]
    return _join(pieces, voice, rng)


def _join(pieces: Sequence[tuple[np.ndarray, list[Phone]]], voice: str, rng: np.random.Generator) -> Utterance:
    samples: list[np.ndarray] = []
    phones: list[Phone] = []
    now = 0.0

    def pause(seconds: float) -> None:
        nonlocal now
        count = int(seconds * MODEL_RATE)
        samples.append(np.zeros(count, dtype=np.float32))
        phones.append(("SIL", now, now + count / MODEL_RATE))
        now += count / MODEL_RATE

    pause(rng.uniform(0.1, 0.8))
    for sound, marks in pieces:
        phones += [(label, now + start, now + end) for label, start, end in marks]
        samples.append(sound)
        now += len(sound) / MODEL_RATE
        pause(rng.uniform(0.1, 0.9))
    whole = np.concatenate(samples)
    peak = float(np.abs(whole).max()) or 1.0
    return Utterance(whole * np.float32(rng.uniform(0.25, 0.9) / peak), _merge_silence(phones), voice)


def _merge_silence(phones: list[Phone]) -> list[Phone]:
    merged: list[Phone] = []
    for label, start, end in phones:
        if merged and label == "SIL" and merged[-1][0] == "SIL":
            merged[-1] = ("SIL", merged[-1][1], end)
        elif end > start:
            merged.append((label, start, end))
    return merged


def _flite(voice: str, text: str, rng: np.random.Generator) -> tuple[np.ndarray, list[Phone]]:
    stretch = f"{rng.uniform(0.85, 1.25):.2f}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "o.wav"
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={stretch}", "-t", text, "-psdur", "-o", str(out)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rate, samples = wavfile.read(out)
    phones: list[Phone] = []
    now = 0.0
    for item in printed.split():
        name, _, end = item.rpartition(":")
        label = _FLITE_TO_CMU.get(name.upper(), name.upper())
        phones.append((label if label in PHONES else "AH", now, float(end)))
        now = float(end)
    sound = samples.astype(np.float32) / 32768.0
    return (sound if rate == MODEL_RATE else resample_poly(sound, MODEL_RATE, rate).astype(np.float32)), phones


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("unique_identifier", ctypes.c_uint), ("text_position", ctypes.c_int), ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int), ("sample", ctypes.c_int), ("user_data", ctypes.c_void_p), ("string", ctypes.c_char * 8),
    ]  # fmt: skip


_EVENT_END, _EVENT_PHONEME = 0, 7
_OUTPUT_SYNCHRONOUS, _PHONEME_EVENTS_IPA = 2, 0x3
_CHARS_UTF8 = 1
_RATE, _PITCH = 1, 3
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _EspeakLibrary:
    """The library keeps one global synthesiser; loaded at first use."""

    _instance: _EspeakLibrary | None = None

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng") or "libespeak-ng.so.1"
        self._library = ctypes.CDLL(name)
        self.rate = self._library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, None, _PHONEME_EVENTS_IPA)
        self._chunks: list[np.ndarray] = []
        self._marks: list[tuple[str, float]] = []
        self._callback = _CALLBACK(self._on_audio)
        self._library.espeak_SetSynthCallback(self._callback)

    @classmethod
    def get(cls) -> _EspeakLibrary:
        cls._instance = cls._instance or cls()
        return cls._instance

    def _on_audio(self, samples: object, count: int, events: object) -> int:
        if samples and count > 0:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())  # type: ignore[call-overload]
        index = 0
        while events[index].type != _EVENT_END:  # type: ignore[index]
            event = events[index]  # type: ignore[index]
            if event.type == _EVENT_PHONEME:
                self._marks.append((event.string.decode("utf-8", "ignore"), event.audio_position / 1000.0))
            index += 1
        return 0

    def speak(self, voice: str, text: str, rate: int, pitch: int) -> tuple[np.ndarray, list[tuple[str, float]]]:
        self._chunks, self._marks = [], []
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise RuntimeError(f"espeak-ng has no voice {voice}")
        self._library.espeak_SetParameter(_RATE, rate, 0)
        self._library.espeak_SetParameter(_PITCH, pitch, 0)
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, 1, 0, _CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._chunks).astype(np.float32) / 32768.0, self._marks


def _espeak(voice: str, text: str, rate: int, pitch: int) -> tuple[np.ndarray, list[Phone]]:
    library = _EspeakLibrary.get()
    sound, marks = library.speak(voice, text, rate, pitch)
    length = len(sound) / library.rate
    starts = [start for _, start in marks] + [length]
    phones: list[Phone] = [("SIL", 0.0, starts[0])]
    for i, (name, start) in enumerate(marks):
        phones.append((_cmu_of_ipa(name), start, max(starts[i + 1], start)))
    return resample_poly(sound, MODEL_RATE, library.rate).astype(np.float32), phones


def _cmu_of_ipa(name: str) -> str:
    if name.startswith(("tʃ", "tɕ", "tʂ")):
        return "CH"
    if name.startswith(("dʒ", "dʑ")):
        return "JH"
    for letter in name:
        if letter in _IPA_TO_CMU:
            return _IPA_TO_CMU[letter]
    return "SIL"
