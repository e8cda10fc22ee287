"""Speech from eSpeak NG, through ctypes; the pip package ``espeakng-loader`` brings the library.

eSpeak NG keeps hidden state from one utterance to the next (the phase of the flutter, noise, the
echo buffer) which neither ``espeak_Terminate`` nor a new random seed resets: the samples of an
utterance would depend on what was spoken before it. So each call loads the library, speaks and
unloads it again, which costs about 2 ms and gives the same samples in any order and process.

API: ``speak_lib.h`` and ``espeak_ng.h`` of https://github.com/espeak-ng/espeak-ng.
"""

import contextlib
import ctypes
import os
import threading
from pathlib import Path
from typing import Iterator, List, Tuple

import numpy as np

from espnet_spire.utils.errors import SpireError

SAMPLE_RATE = 22050

_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_LIMITS = {
    "rate": (80, 450),
    "pitch": (0, 100),
    "pitch_range": (0, 100),
    "volume": (0, 200),
}
_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
_lock = threading.Lock()


def _paths() -> Tuple[Path, Path]:
    """The library and its data directory."""
    try:
        import espeakng_loader
    except ImportError:
        raise SpireError(
            "the Python package espeakng_loader is missing, without which there is no eSpeak NG;"
            " pip install 'espnet_spire[mini]'"
        ) from None
    library, data = Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())
    for path in (library, data / "phontab"):
        if not path.exists():
            raise SpireError(f"{path}: no such file; pip install --force-reinstall espeakng_loader")
    return library, data


def variants() -> List[str]:
    """What may follow ``+`` in the name of a voice, sorted: ``f1``, ``m3``, ``klatt`` …"""
    return sorted(path.name for path in (_paths()[1] / "voices" / "!v").iterdir())


@contextlib.contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    path, data = _paths()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise SpireError(f"{path}: cannot be loaded ({error})") from None
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    try:
        rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, os.fsencode(str(data)), _DONT_EXIT)
        if rate != SAMPLE_RATE:
            raise SpireError(
                f"{data}: eSpeak NG does not start from it (espeak_Initialize gave {rate});"
                " pip install --force-reinstall espeakng_loader"
            )
        # Initialize seeds the noise of breathy voices too: the seed has to come after it.
        library.espeak_ng_SetRandSeed(1)
        yield library
        library.espeak_Terminate()
    finally:
        process = ctypes.CDLL(None)
        process.dlclose.argtypes = [ctypes.c_void_p]
        process.dlclose(library._handle)


def _set_voice(library: ctypes.CDLL, voice: str) -> None:
    base, _, variant = voice.partition("+")
    # An unknown variant is ignored by eSpeak NG, which then speaks with the plain voice.
    if variant and variant not in variants():
        raise SpireError(
            f"voice {voice!r}: eSpeak NG has no variant {variant!r}; it has {' '.join(variants())}"
        )
    if not base or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise SpireError(
            f"voice {voice!r}: eSpeak NG has no voice {base!r}; English ones are"
            " en en-us en-gb-scotland en-gb-x-rp en-029"
        )


def synthesize(
    text: str,
    voice: str,
    *,
    rate: int = 175,
    pitch: int = 50,
    pitch_range: int = 50,
    volume: int = 100,
) -> np.ndarray:
    """Speak a text.

    Args:
        text: what to say; not markup.
        voice: a language of eSpeak NG and perhaps a variant: ``en-us``, ``en-us+f3``.
        rate: words a minute, 80 to 450.
        pitch: 0 to 100, 50 is the voice's own.
        pitch_range: 0 (monotone) to 100, 50 is the voice's own.
        volume: 0 to 200, 100 is normal.

    Returns:
        int16, shape (samples,), mono at 22050 Hz; the same for the same arguments, always.

    Raises:
        SpireError: package missing, voice unknown, a value out of range, nothing to say.

    Example:
        >>> synthesize("Good morning.", "en-us+f3").dtype
        dtype('int16')
    """
    settings = {"rate": rate, "pitch": pitch, "pitch_range": pitch_range, "volume": volume}
    for name, value in settings.items():
        low, high = _LIMITS[name]
        if not low <= value <= high:
            raise SpireError(f"eSpeak NG: {name} {value} is not between {low} and {high}")
    if "\0" in text:
        raise SpireError(f"eSpeak NG: the text {text!r} holds a NUL character; remove it")
    chunks: List[bytes] = []

    @_Callback
    def collect(samples, count, _events):
        if samples and count > 0:
            chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    with _lock, _fresh_library() as library:
        library.espeak_SetSynthCallback(collect)
        _set_voice(library, voice)
        for parameter, value in zip(
            (_RATE, _PITCH, _RANGE, _VOLUME), settings.values(), strict=True
        ):
            if library.espeak_SetParameter(parameter, value, 0) != 0:
                raise SpireError(f"eSpeak NG refuses {settings} for voice {voice!r}")
        spoken = text.encode("utf-8") + b"\0"
        if library.espeak_Synth(spoken, len(spoken), 0, 1, 0, _CHARS_UTF8, None, None) != 0:
            raise SpireError(f"eSpeak NG: voice {voice!r} cannot say {text!r}")
        library.espeak_Synchronize()
    samples = np.frombuffer(b"".join(chunks), dtype=np.int16)
    if not samples.any():
        raise SpireError(f"eSpeak NG: nothing to hear in {text!r}")
    return samples
