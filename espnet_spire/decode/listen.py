"""From audio to the units that a model was taught: its encoder and its codebook."""

from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from espnet_spire.text.vocabulary import CODEBOOK_DIR, SPIRE_JSON
from espnet_spire.train.examples import encoder_of
from espnet_spire.units.assign import Assigner
from espnet_spire.units.codebook import Codebook, codebook_identity, load_codebook
from espnet_spire.units.encoder import MFCC, Pooling, load_encoder
from espnet_spire.units.extract import Job, Options, join_jobs
from espnet_spire.units.notation import line_to_units
from espnet_spire.units.unusable import why_unusable
from espnet_spire.utils.atomic import PathLike, read_json
from espnet_spire.utils.datadir import UTT2SPK, WAV_SCP, write_data_dir
from espnet_spire.utils.errors import SpireError


class Heard(NamedTuple):
    """Units of an utterance, repeats merged, and where each begins and ends, in seconds.

    ``reason``: why there are none.
    """

    units: List[int]
    timings: List[Tuple[float, float]]
    reason: Optional[str] = None


def _model_file(model: str, name: str) -> Optional[Path]:
    """A file of a model, by its directory or from the hub; ``None`` if it has none."""
    if Path(model).is_dir():
        path = Path(model) / name
        return path if path.exists() else None
    from transformers.utils import cached_file

    found = cached_file(
        model,
        name,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def find_codebook(model: str, given: Optional[PathLike], num_units: int) -> Codebook:
    """The codebook whose units a model was taught.

    Args:
        model: directory or hub name.
        given: codebook directory; by default the one that the model has in itself.
        num_units: those that the model's tokenizer has.

    Raises:
        SpireError: there is none, or it is not the model's, as far as the model says which one is.
    """
    if given is None:
        inside = _model_file(model, f"{CODEBOOK_DIR}/codebook.json")
        _model_file(model, f"{CODEBOOK_DIR}/codebook.safetensors")
        if inside is None:
            raise SpireError(
                f"--model {model}: it has no directory {CODEBOOK_DIR}; give --codebook"
                " (import_codebook makes one of a k-means file)"
            )
        given = inside.parent
    codebook = load_codebook(given)
    described = _model_file(model, SPIRE_JSON)
    named = read_json(described) if described else {}
    if named.get("unit_bpe"):
        raise SpireError(
            f"--model {model}: its units are subwords of units; make them with extract_units and"
            " apply_unit_bpe, and give --units"
        )
    if codebook.num_clusters != num_units:
        raise SpireError(
            f"--codebook {given} has {codebook.num_clusters} clusters, the tokenizer of --model"
            f" {model} has {num_units} units"
        )
    origin = named.get("codebook")
    if origin and origin["sha256"] != codebook_identity(given)["sha256"]:
        raise SpireError(
            f"--codebook {given} is not the one that --model {model} was made with"
            f" ({described} says which)"
        )
    return codebook


class Listener:
    """Turns audio into units.

    Args:
        model: directory or hub name of the LM that the units are for.
        tokenizer: the model's.
        codebook: directory, see :func:`find_codebook`.
        encoder, layer: where features come from, by default what the codebook says; directory,
            hub name or ``mfcc``, and transformer block.
        device, dtype: of the encoder.
        num_workers: threads that decode audio.
    """

    def __init__(
        self,
        model: str,
        tokenizer,
        *,
        codebook: Optional[PathLike] = None,
        encoder: Optional[str] = None,
        layer: Optional[int] = None,
        device: str = "cpu",
        dtype: str = "float32",
        num_workers: int = 2,
    ) -> None:
        book = find_codebook(model, codebook, encoder_of(tokenizer).num_units)
        said = book.description
        name = encoder or said.get("encoder")
        block = layer if layer is not None else said.get("layer")
        if not name or (block is None and name != MFCC):
            raise SpireError(
                "the codebook does not say which encoder it was learned with: give --encoder and"
                " --layer"
            )
        pooling = Pooling()
        if said.get("pool_frames", 1) != 1:
            pooling = Pooling(said["pooling"], said["pool_frames"])
        self.encoder = load_encoder(
            name,
            block or 0,
            device=device,
            dtype=dtype,
            # The ε of features that are not normalised is noted as 0.
            normalization_eps=said.get("normalization_eps"),
            pooling=pooling,
        )
        self.codebook = book
        self._assigner = Assigner(book, self.encoder.device)
        self._seconds = 400.0 if self.encoder.device.startswith("cuda") else 40.0
        self._num_workers = num_workers

    def _job(self, *, keep_repeats: bool) -> Job:
        options = Options(keep_repeats, self._seconds, self._num_workers)
        return Job(self.encoder, self._assigner, self.codebook, options)

    def __call__(self, waveforms: Sequence[np.ndarray]) -> List[Heard]:
        """Units of utterances.

        Args:
            waveforms: float32 at 16 kHz, each of shape (samples,).
        """
        reasons = [why_unusable(self.encoder, samples, None) for samples in waveforms]
        batch = [(i, x) for i, x in enumerate(waveforms) if reasons[i] is None]
        found = []
        lines: Dict[int, str] = {}
        if batch:
            results, _ = self._job(keep_repeats=True).encode(batch)
            lines, reasons = (
                results.units,
                [results.rejected.get(i, reason) for i, reason in enumerate(reasons)],
            )
        seconds = 1 / self.encoder.description["frame_rate"]
        for index, reason in enumerate(reasons):
            found.append(
                Heard([], [], reason)
                if index not in lines
                else _merged(line_to_units(lines[index]), seconds)
            )
        return found

    def extract(self, data_dir: PathLike, out: PathLike) -> None:
        """Write the unit file of a data directory; a killed run goes on.

        What is unusable is listed beside it, however much it is: decoding says so in its turn.
        """
        job = self._job(keep_repeats=False)
        job.run(data_dir, out)
        join_jobs(data_dir, out, 1, max_rejected=1.0, settings=job.settings)


def _merged(frames: Sequence[int], seconds: float) -> Heard:
    """One unit for each run of equal ones, and its time."""
    units: List[int] = []
    starts: List[int] = []
    for place, unit in enumerate(frames):
        if not units or unit != units[-1]:
            units.append(unit)
            starts.append(place)
    ends = [*starts[1:], len(frames)]
    times = [
        (round(start * seconds, 4), round(end * seconds, 4))
        for start, end in zip(starts, ends, strict=True)
    ]
    return Heard(units, times)


def write_wav_dir(files: Sequence[PathLike], out: PathLike) -> Path:
    """A data directory of audio files, whose keys are their names without the ending.

    Raises:
        SpireError: a file is missing, or two have one name.
    """
    table: Dict[str, str] = {}
    for file in files:
        path = Path(file)
        if not path.is_file():
            raise SpireError(f"--wav {file}: no such file")
        key = "_".join(path.stem.split())
        if key in table:
            raise SpireError(f"--wav {file}: {table[key]} has the same name; rename one of them")
        table[key] = str(path.absolute())
    write_data_dir(out, {WAV_SCP: table, UTT2SPK: {key: key for key in table}})
    return Path(out)
