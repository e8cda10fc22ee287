"""SPIRE for ESPnet: a text translation LLM that is taught to hear."""

from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from espnet_spire.decode.speech_to_text import SpeechToText, SpeechToTextResult

__version__ = "0.1.0"
__all__ = ["SpeechToText", "SpeechToTextResult", "__version__"]


def __getattr__(name: str) -> Any:
    """The interface from Python, loaded when it is asked for: commands' --help is to be quick."""
    if name in ("SpeechToText", "SpeechToTextResult"):
        from espnet_spire.decode import speech_to_text

        return getattr(speech_to_text, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
