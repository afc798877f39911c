"""Speech from espeak-ng, through the library and data that the package espeakng-loader carries.

The library keeps state from one utterance to the next (noise generator, flutter, echo), so the
same text does not sound the same twice in one process. Synthesize each utterance in a fork of a
process that has loaded the library and never used it.
"""

from __future__ import annotations

import ctypes
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# From espeak-ng's speak_lib.h.
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_POSITION_CHARACTER = 1
_CHARS_UTF8_AND_SSML = 1 | 0x10
_RATE, _PITCH, _RANGE, _WORD_GAP = 1, 3, 4, 7
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


@dataclass(frozen=True)
class Manner:
    """How a sentence is said.

    Attributes:
        voice: espeak-ng's voice, accent+variant.
        words_per_minute: Speed, at least 80.
        pitch: 0 to 99, 50 = the voice's own.
        pitch_range: 0 to 99, 50 = the voice's own.
        word_gap: Pause between words beyond the natural one, in units of 10 ms.
    """

    voice: str
    words_per_minute: int
    pitch: int
    pitch_range: int
    word_gap: int


@cache
def load_espeak() -> tuple[Any, int]:
    """Load espeak-ng; return the library and its sampling rate in Hz.

    Raises:
        ValueError: If espeakng-loader is not installed or its library cannot be used here.
    """
    remedy = "'make setup' installs it; elsewhere: pip install 'espnet_layerskip[espeak]'"
    try:
        import espeakng_loader

        library = ctypes.CDLL(espeakng_loader.get_library_path())
        data_path = espeakng_loader.get_data_path()
    except ImportError as err:
        raise ValueError(f"the package espeakng-loader is not installed; {remedy}") from err
    except (OSError, RuntimeError) as err:
        raise ValueError(f"espeakng-loader's library cannot be used ({err}); {remedy}") from err
    rate = library.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, data_path.encode(), 0)
    if rate <= 0:
        raise ValueError(f"espeak-ng cannot read its data in {data_path}; {remedy}")
    return library, rate


def espeak_version() -> str:
    """Return the version of espeak-ng."""
    library, _ = load_espeak()
    library.espeak_Info.restype = ctypes.c_char_p
    version: bytes = library.espeak_Info(None)
    return version.decode()


def to_ssml(words: Sequence[str], pauses_ms: Sequence[int]) -> str:
    """Write words, with a pause after each, as espeak-ng is to read them.

    It says "A" as the article; a letter's name is asked for by "ay".

    >>> to_ssml(["A", "GO"], [0, 250])
    'ay go <break time="250ms"/>'
    """
    parts = []
    for word, pause in zip(words, pauses_ms, strict=True):
        parts.append("ay" if word == "A" else html.escape(word.lower()))
        if pause > 0:
            parts.append(f'<break time="{pause}ms"/>')
    return " ".join(parts)


def synthesize(ssml: str, manner: Manner) -> tuple[NDArray[np.int16], int]:
    """Say a text.

    Returns:
        x (N,) int16 and its sampling rate in Hz.

    Raises:
        ValueError: An unknown voice, or nothing was said.
    """
    library, rate = load_espeak()
    chunks: list[NDArray[np.int16]] = []

    def collect(samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, shape=(count,)).copy())
        return 0

    callback = _CALLBACK(collect)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(manner.voice.encode()) != 0:
        raise ValueError(f"espeak-ng has no voice '{manner.voice}'")
    for parameter, value in (
        (_RATE, manner.words_per_minute),
        (_PITCH, manner.pitch),
        (_RANGE, manner.pitch_range),
        (_WORD_GAP, manner.word_gap),
    ):
        library.espeak_SetParameter(parameter, value, 0)
    text = ssml.encode()
    size = ctypes.c_size_t(len(text) + 1)
    status = library.espeak_Synth(
        text, size, 0, _POSITION_CHARACTER, 0, _CHARS_UTF8_AND_SSML, None, None
    )
    if status != 0 or not chunks:
        raise ValueError(f"espeak-ng said nothing (status {status}) for {ssml!r}")
    return np.concatenate(chunks), rate
