"""Data directories to unit files."""

from typing import Dict, Iterator, NamedTuple, Tuple

import numpy as np

from espnet_spire.units.audio import SAMPLE_RATE, load_audio, utterance_sources
from espnet_spire.units.batching import batches
from espnet_spire.units.codebook import Codebook
from espnet_spire.units.mfcc import num_frames
from espnet_spire.units.notation import merge_repeats, units_to_line
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import shard_of
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress


class Extraction(NamedTuple):
    """``units``: utterance → line of a unit file; ``rejected``: utterance → reason."""

    units: Dict[str, str]
    rejected: Dict[str, str]


def extract_units(
    encoder,
    codebook: Codebook,
    data_dir: PathLike,
    *,
    keep_repeats: bool = False,
    batch_seconds: float = 40.0,
    num_shards: int = 1,
    shard: int = 1,
) -> Extraction:
    """Units of every utterance of (a shard of) a data directory.

    Consecutive repeats are merged unless ``keep_repeats``.
    """
    codebook.check_encoder(encoder.description)
    sources = utterance_sources(data_dir)
    keys = shard_of(list(sources), num_shards, shard)
    rejected: Dict[str, str] = {}

    def read() -> Iterator[Tuple[str, np.ndarray]]:
        for key in keys:
            try:
                samples = load_audio(sources[key])
            except SpireError as error:
                rejected[key] = str(error)
                continue
            if num_frames(len(samples)) < 1:
                rejected[key] = f"{len(samples)} samples are shorter than one frame"
                continue
            yield key, samples

    units: Dict[str, str] = {}
    with progress(total=len(keys), desc=f"units {data_dir}", unit="utt") as bar:
        for batch in batches(read(), max_samples=int(batch_seconds * SAMPLE_RATE)):
            for (key, _), features in zip(
                batch, encoder([samples for _, samples in batch]), strict=True
            ):
                assigned = codebook.nearest(features).numpy()
                units[key] = units_to_line(assigned if keep_repeats else merge_repeats(assigned))
            bar.update(len(batch))
        bar.update(len(rejected))
    return Extraction(units, rejected)
