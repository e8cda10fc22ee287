"""Audio and units of test sets for a page: small, and no more than a budget of bytes."""

import base64
import io
import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from espnet_spire.units.audio import SAMPLE_RATE, load_audio, utterance_sources
from espnet_spire.units.unit_files import rejected_file
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import WAV_SCP, iter_table
from espnet_spire.utils.errors import SpireError

# Of what is played in a browser as it is.
_PLAYED = (".flac", ".mp3", ".ogg", ".opus", ".wav")
_UNITS = "text.rm."
Key = Tuple[str, str]  # set and utterance


def encode(samples) -> bytes:
    """16 kHz mono samples as MP3 of low, variable rate, which every browser plays."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(
        buffer,
        samples,
        SAMPLE_RATE,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=0.9,
        bitrate_mode="VARIABLE",
    )
    return buffer.getvalue()


class Clips:
    """What can be heard, and read as units, of the utterances of a page.

    Args:
        raw_dir: holds a data directory for each test set.
        units_name: the file with units in it; by default the only one there is.
        max_bytes: of all audio in the page together, in base64.
        link_from: directory of a page that links to the audio files; ``None``: audio is in it.

    Attributes:
        notes: why something is not there.
    """

    def __init__(
        self,
        raw_dir: PathLike,
        *,
        units_name: Optional[str] = None,
        max_bytes: int,
        link_from: Optional[PathLike] = None,
    ) -> None:
        self.raw_dir = Path(raw_dir)
        self.units_name = units_name
        self.max_bytes = max_bytes
        self.link_from = link_from
        self.notes: List[str] = []

    def of(self, keys: Sequence[Key]) -> Dict[Key, Dict[str, Any]]:
        """``audio`` (a URL), ``seconds`` and ``units`` of utterances, the most wanted first.

        Raises:
            SpireError: a table of a set cannot be read, or ``units_name`` is not there.
        """
        found: Dict[Key, Dict[str, Any]] = {key: {} for key in keys}
        for name in dict.fromkeys(name for name, _ in keys):
            if not (self.raw_dir / name / WAV_SCP).is_file():
                self.notes.append(f"no audio of {name}: {self.raw_dir / name} has no {WAV_SCP}")
                continue
            wanted = {utterance for set_name, utterance in keys if set_name == name}
            for utterance, line in self._units(name, wanted).items():
                found[(name, utterance)]["units"] = line
        self._add_audio(found)
        return found

    def _units(self, name: str, wanted: set) -> Dict[str, str]:
        directory = self.raw_dir / name
        path = directory / (self.units_name or "")
        if self.units_name is None:
            # What is beside a unit file has its name with something behind.
            names = sorted(p.name for p in directory.glob(f"{_UNITS}*"))
            names = [n for n in names if rejected_file(directory / n).exists()]
            if len(names) != 1:
                which = f"which of {', '.join(names)}? (--units_name)" if names else "no unit file"
                self.notes.append(f"no units of {name}: {which}")
                return {}
            path = directory / names[0]
        return {
            key: line for key, line in iter_table(path, allow_empty_value=True) if key in wanted
        }

    def _add_audio(self, found: Mapping[Key, Dict[str, Any]]) -> None:
        sources = {
            name: utterance_sources(self.raw_dir / name)
            for name in {name for name, _ in found}
            if (self.raw_dir / name / WAV_SCP).is_file()
        }
        size, left_out, unusable = 0, 0, []
        for (name, utterance), clip in found.items():
            source = sources.get(name, {}).get(utterance)
            if source is None:
                continue
            if self.link_from is not None:
                path = Path(source.rxfilename)
                if source.whole and path.suffix.lower() in _PLAYED:
                    relative = os.path.relpath(path.resolve(), Path(self.link_from).resolve())
                    clip["audio"] = Path(relative).as_posix()
                else:
                    left_out += 1
                continue
            if size >= self.max_bytes:
                left_out += 1
                continue
            try:
                samples = load_audio(source)
            except SpireError as error:
                unusable.append(str(error))
                continue
            audio = "data:audio/mpeg;base64," + base64.b64encode(encode(samples)).decode("ascii")
            if size + len(audio) > self.max_bytes:
                left_out += 1
                continue
            size += len(audio)
            clip["audio"] = audio
            clip["seconds"] = round(len(samples) / SAMPLE_RATE, 2)
        if left_out:
            why = (
                "are no whole files that browsers play"
                if self.link_from is not None
                else (
                    f"are left out: {self.max_bytes / 2**20:g} MiB is the limit (--max_audio_mib)"
                )
            )
            self.notes.append(
                f"{left_out} of {len(found)} utterances have no audio here: they {why}"
            )
        if unusable:
            self.notes.append(f"{len(unusable)} utterances cannot be heard: {unusable[0]}")
