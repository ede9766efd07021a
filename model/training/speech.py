"""Synthetic speech with known phones: flite's and festival's recorded voices, espeak-ng for every other language and voice quality.

All phone sets become one inventory, the 39 CMU phones plus SIL, because only the mouth's shape matters. A seed and a set of installed
voices fix what is said, by whom, how fast and how high; but espeak-ng draws noise of its own, and its times differ by milliseconds from
call to call. Seeds from HELD_OUT on use voices that no other seed uses.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from scipy.io import wavfile
from scipy.signal import resample_poly

from model.audio import PHONES
from model.geometry import MODEL_RATE
from model.training.sentences import OTHER_LANGUAGES, english_sentence, foreign_sentence

Phone = tuple[str, float, float]
Spoken = tuple[np.ndarray, list[Phone]]
HELD_OUT = 900_000
FLITE_VOICES = ("slt", "rms", "awb", "kal16")
# Festival's function for the voice, and its language: English, Italian, Russian and Finnish recordings of people.
FESTIVAL_VOICES = {
    "cmu_us_slt_arctic_hts": "en", "kal_diphone": "en", "ked_diphone": "en", "lp_diphone": "it", "pc_diphone": "it",
    "msu_ru_nsh_clunits": "ru", "hy_fi_mv_diphone": "fi", "suo_fi_lj_diphone": "fi",
}  # fmt: skip
_UNHEARD = {"kal16", "kal_diphone", "pc_diphone", "hy_fi_mv_diphone", "m7", "f5"}  # kal16 and kal_diphone are one speaker
_VARIANTS = ("m1", "m3", "m4", "m7", "f1", "f2", "f4", "f5")
_FESTIVAL_FOLDER = Path("/usr/share/festival/voices")

# espeak's IPA symbols by the mouth shape nearest to a CMU phone; the first matching letter of a phoneme name decides.
_IPA = {
    "SIL": "", "AA": "ɑɒaɐä", "AE": "æ", "AH": "ʌəɜɘ", "AO": "ɔ", "B": "bɓ", "CH": "", "D": "dɖ", "DH": "ð", "EH": "ɛ", "ER": "ɚɝ",
    "EY": "e", "F": "fɸ", "G": "ɡg", "HH": "hɦxχħʜɣʁʕç", "IH": "ɪɨ", "IY": "i", "K": "kqcɟ", "L": "lɫɭʎɬɮ", "M": "mɱ",
    "N": "nɲɳ", "NG": "ŋɴ", "OW": "oɤ", "P": "p", "R": "rɹɾɻʀɽ", "S": "sɕ", "SH": "ʃʂ", "T": "tʈʔ", "TH": "θ", "UH": "ʊ",
    "UW": "uʉɯ", "V": "vʋβ", "W": "wʍɥ", "Y": "jʝ", "Z": "zʑ", "ZH": "ʒʐ", "ROUND_I": "yʏøœɵ",
}  # fmt: skip
_IPA_TO_CMU = {letter: ("UW" if cmu == "ROUND_I" else cmu) for cmu, letters in _IPA.items() for letter in letters}
_ENGLISH_TO_CMU = {"PAU": "SIL", "AX": "AH", "SSIL": "SIL", "H#": "SIL", "AXR": "ER", "DX": "D", "#": "SIL"}
# Names of the other festival voices that are no CMU phone once stress, length and doubling are taken off.
_OTHER_TO_CMU = {
    "#": "SIL", "PAU": "SIL", "a": "AA", "e": "EH", "E": "EH", "i": "IY", "o": "AO", "O": "AO", "u": "UW", "y": "UW", "@": "AE",
    "7": "UW", "aa": "AA", "ay": "AH", "ae": "AH", "ee": "EH", "ii": "IY", "oo": "AO", "uu": "UW", "ur": "UH", "yy": "IH", "c": "T",
    "ts": "T", "dz": "Z", "dZ": "JH", "tS": "CH", "S": "SH", "sch": "SH", "h": "HH", "hh": "HH", "j": "Y", "J": "N", "nf": "V", "N": "NG",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Utterance:
    """samples float32 [n] in [-1, 1] at 16 kHz; phones cover it without holes: (label, start in s, end in s); what was said, and in which
    language (espeak-ng's name for it)."""

    samples: np.ndarray
    phones: list[Phone]
    voice: str
    language: str
    texts: tuple[str, ...]


@cache
def installed_voices(held_out: bool) -> tuple[tuple[str, str], ...]:
    """(engine, voice) of what this machine can speak with; espeak-ng is always among them."""
    voices = [("flite", name) for name in FLITE_VOICES if shutil.which("flite")]
    voices += [("festival", name) for name in FESTIVAL_VOICES if any(_FESTIVAL_FOLDER.glob(f"*/{name}"))]
    voices += [("espeak", name) for name in _VARIANTS]
    return tuple(voice for voice in voices if (voice[1] in _UNHEARD) == held_out)


def synthesise(seed: int) -> Utterance:
    """One to three sentences with pauses around them, 3 to 11 s, at a speed, pitch and voice of the seed."""
    rng = np.random.default_rng([seed, 99])
    voices = installed_voices(seed >= HELD_OUT)
    engines = sorted({engine for engine, _ in voices})
    shares = np.array([{"flite": 0.4, "festival": 0.25, "espeak": 0.35}[engine] for engine in engines])
    engine = str(rng.choice(engines, p=shares / shares.sum()))
    names = [name for kind, name in voices if kind == engine]
    name = names[int(rng.integers(len(names)))]
    pieces: list[Spoken] = []
    texts: list[str] = []
    wanted_s = rng.uniform(2.0, 6.0)
    language = str(rng.choice(["en-us", "en", *OTHER_LANGUAGES])) if engine == "espeak" else FESTIVAL_VOICES.get(name, "en")
    while sum(len(sound) for sound, _ in pieces) < 0.75 * wanted_s * MODEL_RATE:
        texts.append(english_sentence(rng) if language.startswith("en") else foreign_sentence(language, rng))
        pieces.append(_say(engine, name, language, texts[-1], rng))
    return _spoken(pieces, engine, name, language, texts, rng)


def say_again(utterance: Utterance, rng: np.random.Generator) -> Utterance:
    """The same words by another voice of those that seeds below HELD_OUT use."""
    english = utterance.language.startswith("en")
    voices = [
        (engine, name) for engine, name in installed_voices(False)
        if engine == "espeak" or (english and FESTIVAL_VOICES.get(name, "en") == "en")
    ]  # fmt: skip
    engine, name = voices[int(rng.integers(len(voices)))]
    language = str(rng.choice(["en-us", "en"])) if english else utterance.language
    pieces = [_say(engine, name, language, text, rng) for text in utterance.texts]
    return _spoken(pieces, engine, name, language, utterance.texts, rng)


def _say(engine: str, name: str, language: str, text: str, rng: np.random.Generator) -> Spoken:
    if engine == "flite":
        return _flite(name, text, rng)
    if engine == "festival":
        return _festival(name, language, text, rng)
    return _espeak(f"{language}+{name}", text, int(rng.integers(120, 210)), int(rng.integers(25, 75)))


def _spoken(
    pieces: list[Spoken], engine: str, name: str, language: str, texts: Sequence[str], rng: np.random.Generator
) -> Utterance:  # fmt: skip
    # Resampling moves pitch, vocal tract and speed together: another body out of the same voice.
    factor = float(rng.uniform(0.86, 1.18)) if rng.random() < 0.6 else 1.0
    samples, phones = _joined([_resized(piece, factor) for piece in pieces], rng)
    return Utterance(samples, phones, f"{language}+{name}" if engine == "espeak" else name, language, tuple(texts))


def _resized(piece: Spoken, factor: float) -> Spoken:
    sound, phones = piece
    if factor == 1.0:
        return piece
    resized = resample_poly(sound, round(100 / factor), 100).astype(np.float32)
    ratio = len(resized) / len(sound)
    return resized, [(label, start * ratio, end * ratio) for label, start, end in phones]


def _joined(pieces: Sequence[Spoken], rng: np.random.Generator) -> Spoken:
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
        length = len(sound) / MODEL_RATE
        phones += [(label, now + min(start, length), now + min(end, length)) for label, start, end in marks]
        if marks and marks[-1][2] < length:
            phones.append(("SIL", now + marks[-1][2], now + length))
        samples.append(sound)
        now += len(sound) / MODEL_RATE
        pause(rng.uniform(0.1, 0.9))
    whole = np.concatenate(samples)
    peak = float(np.abs(whole).max()) or 1.0
    return whole * np.float32(rng.uniform(0.25, 0.9) / peak), _merge_silence(phones)


def _merge_silence(phones: list[Phone]) -> list[Phone]:
    merged: list[Phone] = []
    for label, start, end in phones:
        if merged and label == "SIL" and merged[-1][0] == "SIL":
            merged[-1] = ("SIL", merged[-1][1], end)
        elif end > start:
            merged.append((label, start, end))
    return merged


def _flite(voice: str, text: str, rng: np.random.Generator) -> Spoken:
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
        phones.append((_cmu_of_english(name), now, float(end)))
        now = float(end)
    sound = samples.astype(np.float32) / 32768.0
    return (sound if rate == MODEL_RATE else resample_poly(sound, MODEL_RATE, rate).astype(np.float32)), phones


def _festival(voice: str, language: str, text: str, rng: np.random.Generator) -> Spoken:
    encoding = "utf-8" if language == "ru" else "latin-1"
    plain = text.replace('"', "").replace("\\", "").encode(encoding, "ignore").decode(encoding)
    with tempfile.TemporaryDirectory() as folder:
        out, marks, script = Path(folder) / "o.wav", Path(folder) / "o.segs", Path(folder) / "o.scm"
        script.write_text(
            f"(voice_{voice})\n(Parameter.set 'Duration_Stretch {rng.uniform(0.85, 1.2):.2f})\n"
            f'(set! u (utt.synth (Utterance Text "{plain}")))\n(utt.save.wave u "{out}" \'riff)\n(utt.save.segs u "{marks}")\n',
            encoding=encoding,
        )
        subprocess.run(["festival", "-b", str(script)], capture_output=True, check=True)
        rate, samples = wavfile.read(out)
        rows = [line.split() for line in marks.read_text(encoding=encoding).splitlines()[1:] if line]
    phones: list[Phone] = []
    now = 0.0
    for end, _, name in rows:
        phones.append((_cmu_of_english(name) if language == "en" else _cmu_of_other(name), now, float(end)))
        now = float(end)
    sound = samples.astype(np.float32) / 32768.0
    return (sound if rate == MODEL_RATE else resample_poly(sound, MODEL_RATE, rate).astype(np.float32)), phones


def _cmu_of_english(name: str) -> str:
    label = _ENGLISH_TO_CMU.get(name.upper(), name.upper())
    return label if label in PHONES else "AH"


def _cmu_of_other(name: str) -> str:
    """Italian marks stress with 1, Finnish length with a colon, Russian palatal consonants by doubling."""
    bare = name.rstrip("1:")
    if bare in _OTHER_TO_CMU or name == "pau":
        return _OTHER_TO_CMU.get(bare, "SIL")
    single = bare[0] if len(bare) == 2 and bare[0] == bare[1] else bare
    label = single.upper()
    return label if label in PHONES else _OTHER_TO_CMU.get(single, "AH")


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


def _espeak(voice: str, text: str, rate: int, pitch: int) -> Spoken:
    library = _EspeakLibrary.get()
    sound, marks = library.speak(voice, text, rate, pitch)
    # "(en)" announces a change of language and a lone modifier belongs to the sound before it: neither is a sound.
    marks = [(name, start) for name, start in marks if not name.startswith("(") and name not in ("ʲ", "ː", "ʷ", "ʰ")]
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
    return next((_IPA_TO_CMU[letter] for letter in name if letter in _IPA_TO_CMU), "AH" if name.strip("-.|_ ") else "SIL")
