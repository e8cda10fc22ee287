"""Utterances with transcripts for the training of CTC, and which of them are of no use."""

from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from espnet_spire.baselines.characters import spoken_form
from espnet_spire.units.audio import SAMPLE_RATE, load_audio
from espnet_spire.units.durations import utterance_samples
from espnet_spire.units.sources import Source, iter_sources
from espnet_spire.utils.atomic import PathLike
from espnet_spire.utils.datadir import TEXT, read_table


class Spoken(NamedTuple):
    """An utterance: where its audio is, samples at 16 kHz, transcript in its spoken form."""

    key: str
    source: Source
    num_samples: int
    text: str


class SpokenSet(NamedTuple):
    """Utterances to train on, and of the others why they are not."""

    utterances: List[Spoken]
    rejected: Dict[str, str]


def read_spoken(
    data_dir: PathLike, num_frames: Callable[[Tensor], Tensor], max_seconds: float
) -> SpokenSet:
    """The utterances of a data directory; those that CTC cannot use are rejected.

    Args:
        num_frames: of so many samples, see :class:`HubertDeepCtc`.
        max_seconds: longer audio is rejected.
    """
    texts = read_table(Path(data_dir) / TEXT, allow_empty_value=True)
    sources = dict(iter_sources(data_dir))
    found = SpokenSet([], {})
    for duration in utterance_samples(data_dir):
        key, count = duration.key, duration.num_samples
        text = spoken_form(texts.get(key, ""))
        reason = duration.reason
        if reason is None and not text:
            reason = "it has no transcript, or one without words"
        if reason is None and count > max_seconds * SAMPLE_RATE:
            reason = f"{count / SAMPLE_RATE:.1f} s are more than max_seconds ({max_seconds:g})"
        if reason is None:
            frames = int(num_frames(torch.tensor(count)))
            if frames < needed_frames(text):
                reason = f"{max(frames, 0)} frames are too few for {len(text)} characters"
        if reason is not None:
            found.rejected[key] = reason
        else:
            found.utterances.append(Spoken(key, sources[key], count, text))
    return found


def needed_frames(text: str) -> int:
    """The fewest frames that can say a text: one a character, a blank between equal ones.

    >>> needed_frames("all")
    4
    """
    return len(text) + sum(a == b for a, b in zip(text, text[1:], strict=False))


class SpokenDataset(Dataset):
    """Samples and labels of utterances.

    Raises:
        SpireError: audio that cannot be read, when it is its turn; the message names the file.
    """

    def __init__(self, utterances: Sequence[Spoken], tokenizer) -> None:
        self._utterances = list(utterances)
        self._tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self._utterances)

    def __getitem__(self, index: int) -> Dict[str, object]:
        utterance = self._utterances[index]
        labels = self._tokenizer(utterance.text).input_ids
        return {"input_values": load_audio(utterance.source), "labels": labels}


class Padded:
    """Makes a batch of the items of :class:`SpokenDataset`; labels are padded with -100."""

    def __init__(self, feature_extractor) -> None:
        self._extractor = feature_extractor

    def __call__(self, items: Sequence[Dict[str, object]]) -> Dict[str, Tensor]:
        batch = self._extractor(
            [item["input_values"] for item in items],
            sampling_rate=SAMPLE_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        labels = [torch.tensor(item["labels"]) for item in items]
        batch["labels"] = torch.nn.utils.rnn.pad_sequence(
            labels, batch_first=True, padding_value=-100
        )
        return dict(batch)


class LengthBuckets(Sampler):
    """transformers' grouping by length, in an order that seed and epoch alone decide."""

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = list(lengths), batch_size, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self.epoch)
        return iter(
            get_length_grouped_indices(self._lengths, self._batch_size, generator=generator)
        )
