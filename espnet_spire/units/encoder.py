"""Speech encoders: samples in, the features that k-means clusters out.

Layer L of a transformer encoder is the residual stream after block L, *without* the final layer
norm: ``hidden_states[L]`` of transformers. A batch gives what one utterance at a time gives.
"""

import math
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.framing import frame_windows
from espnet_spire.units.models import (
    NORMALIZE_EPS,
    FilterBankModel,
    MfccModel,
    WaveformModel,
)
from espnet_spire.units.unusable import too_short
from espnet_spire.utils.errors import SpireError

MFCC = "mfcc"
WAVEFORM_TYPES = ("hubert", "wavlm", "wav2vec2")
FILTER_BANK_TYPES = ("wav2vec2-bert",)
POOLINGS = ("mean", "max")
# Longer audio is cut: attention over more than this costs more than it tells.
WINDOW_SECONDS = 100.0
# A last window shorter than this would have too little to look at.
_TAIL_SECONDS = 1.0


class Pooling(NamedTuple):
    """``frames`` frames become one by their mean or maximum; 1 leaves them as they are.

    What is left over at the end of an utterance is pooled as well: no frame is lost.
    """

    kind: str = "mean"
    frames: int = 1

    def num_frames(self, frames: int) -> int:
        return -(-frames // self.frames)

    def __call__(self, features: Tensor) -> Tensor:
        """(frames, D) → (``num_frames(frames)``, D)."""
        if self.frames == 1:
            return features
        whole = len(features) // self.frames * self.frames
        groups = [features[:whole].unflatten(0, (-1, self.frames))] if whole else []
        if whole < len(features):
            groups.append(features[None, whole:])
        if self.kind == "mean":
            return torch.cat([group.mean(dim=1) for group in groups])
        return torch.cat([group.amax(dim=1) for group in groups])


NO_POOLING = Pooling()


class Encoder:
    """A speech model with the rules that all models share: windows and pooling.

    Args:
        model: see :mod:`espnet_spire.units.models`.
        description: what features of it are, see :func:`describe_encoder`.
        window_seconds: longer audio is encoded in windows of so much; their frames join without
            loss or repeat, since each window also reads the few samples its last frame needs.
        pooling: how frames are joined.
    """

    def __init__(
        self,
        model,
        description: Dict[str, Any],
        *,
        window_seconds: float = WINDOW_SECONDS,
        pooling: Pooling = NO_POOLING,
    ) -> None:
        self.model = model
        self.description = description
        self.pooling = pooling
        self.dim = model.dim
        self.device = model.device
        self.window_seconds = window_seconds
        # Whole groups of pooled frames, so that windows can be pooled one by one.
        frames = round(window_seconds * SAMPLE_RATE / model.framing.hop)
        self.window = max(1, frames // pooling.frames) * pooling.frames
        self.tail = min(self.window // 2, round(_TAIL_SECONDS * SAMPLE_RATE / model.framing.hop))
        # Whether __call__ and alone() differ by float32 rounding, or by that of bfloat16.
        self.rounds = model.dtype != torch.float32
        self.compares_alone = not (model.exact or self.rounds)

    @property
    def settings(self) -> Dict[str, Any]:
        """All that the numbers depend on, the device included."""
        return {
            **self.description,
            "window_seconds": self.window_seconds,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": torch.device(self.device).type,
        }

    def num_frames(self, num_samples: int) -> int:
        """Frames that :meth:`__call__` gives for so many samples; 0 when they are too few."""
        return self.pooling.num_frames(self.model.framing.num_frames(num_samples))

    def __call__(self, batch: Sequence[np.ndarray]) -> List[Tensor]:
        """Encode utterances together.

        Args:
            batch: float32 samples at 16 kHz, each of shape (samples,).

        Returns:
            float32 on the model's device, each of shape (``num_frames(samples)``, D).

        Raises:
            ValueError: an utterance is shorter than one frame.
        """
        found: List[List[Tensor]] = [[] for _ in batch]
        for row, features in self.parts(batch):
            found[row].append(features)
        return [features[0] if len(features) == 1 else torch.cat(features) for features in found]

    def parts(self, batch: Sequence[np.ndarray]) -> Iterator[Tuple[int, Tensor]]:
        """What :meth:`__call__` gives, a window at a time: the memory of an hour of audio is one's.

        Yields:
            the number of an utterance in the batch, and features of its next window.
        """
        pieces, lengths, rows = [], [], []
        for row, samples in enumerate(batch):
            prepared, windows = self._cut(samples)
            for first, last in windows:
                pieces.append(self.model.piece(prepared, first, _open_end(last, windows)))
                lengths.append(last - first)
                rows.append(row)
        # The size of a batch of utterances is the caller's choice; one long utterance is cut.
        most = self.window if len(batch) == 1 else max(self.window, sum(lengths))
        for start, end in _groups(lengths, most):
            features = self.model.encode(pieces[start:end], lengths[start:end])
            for row, part in zip(rows[start:end], features.split(lengths[start:end]), strict=True):
                yield row, self.pooling(part)

    def alone(self, samples: np.ndarray) -> Tensor:
        """One utterance by transformers' own forward pass in float32: what units are defined by."""
        return torch.cat(list(self.parts_alone(samples)))

    def parts_alone(self, samples: np.ndarray) -> Iterator[Tensor]:
        """:meth:`alone`, a window at a time."""
        prepared, windows = self._cut(samples)
        for first, last in windows:
            piece = self.model.piece(prepared, first, _open_end(last, windows))
            yield self.pooling(self.model.encode_alone(piece))

    def _cut(self, samples: np.ndarray):
        frames = self.model.framing.num_frames(len(samples))
        if frames < 1:
            raise ValueError(too_short(len(samples)))
        most = self.window if self.model.can_cut else frames
        return self.model.prepare(samples), frame_windows(frames, most, tail=self.tail)


def _groups(lengths: List[int], most: int) -> Iterator[Tuple[int, int]]:
    """Runs of windows of at most ``most`` frames together."""
    start, total = 0, 0
    for position, length in enumerate(lengths):
        if position > start and total + length > most:
            yield start, position
            start, total = position, 0
        total += length
    yield start, len(lengths)


def _open_end(last: int, windows) -> Optional[int]:
    """The last window has all samples to the end, which a norm over time looks at."""
    return None if last == windows[-1][1] else last


def _read_config(name: str, layer: int):
    """transformers' configuration and feature extractor, checked."""
    from transformers import AutoConfig, AutoFeatureExtractor

    try:
        config = AutoConfig.from_pretrained(name)
        extractor = AutoFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise SpireError(f"--encoder {name}: {str(error).splitlines()[0]}") from None
    if config.model_type not in WAVEFORM_TYPES + FILTER_BANK_TYPES:
        known = ", ".join(WAVEFORM_TYPES + FILTER_BANK_TYPES)
        raise SpireError(
            f"--encoder {name}: model type {config.model_type} is not one of {known}, {MFCC}"
        )
    if extractor.sampling_rate != SAMPLE_RATE:
        raise SpireError(f"--encoder {name}: wants {extractor.sampling_rate} Hz, not 16000")
    if not 1 <= layer <= config.num_hidden_layers:
        raise SpireError(f"--layer {layer}: {name} has layers 1 to {config.num_hidden_layers}")
    activation = getattr(config, "feat_extract_activation", "gelu")
    if config.model_type in WAVEFORM_TYPES and activation != "gelu":
        raise SpireError(
            f"--encoder {name}: feat_extract_activation {activation} is not supported, gelu is"
        )
    return config, extractor


def check_dtype(name: str, dtype: str) -> None:
    """Raise where an encoder does not know a ``dtype``."""
    if name == MFCC and dtype != "float32":
        raise SpireError(f"--dtype {dtype}: {MFCC} is float32 only; leave the option out")


def _check_pooling(pooling: Pooling) -> None:
    if pooling.kind not in POOLINGS:
        raise SpireError(f"--pooling {pooling.kind}: choose {' or '.join(POOLINGS)}")
    if pooling.frames < 1:
        raise SpireError(f"--pool_frames {pooling.frames}: at least 1 frame")


def describe_encoder(
    name: str,
    layer: int,
    *,
    normalization_eps: Optional[float] = None,
    pooling: Pooling = NO_POOLING,
) -> Dict[str, Any]:
    """What makes two streams of features the same, read from the configuration alone.

    Args:
        name: ``mfcc``, directory or hub name.
        layer: L, from 1; ignored for ``mfcc``.
        normalization_eps: ε of the normalisation, by default transformers' 1e-7.
        pooling: how frames are joined.
    """
    return _described(name, layer, normalization_eps, pooling)[0]


def _described(name: str, layer: int, normalization_eps: Optional[float], pooling: Pooling):
    """:func:`describe_encoder` and transformers' feature extractor, ``None`` for ``mfcc``."""
    _check_pooling(pooling)
    eps = NORMALIZE_EPS if normalization_eps is None else normalization_eps
    if not eps >= 0:
        raise SpireError(f"--normalization_eps {eps}: must not be negative")
    hop = MfccModel.framing.hop
    extractor = None
    if name == MFCC:
        kind, layer, normalization, dim = MFCC, 0, "none", MfccModel.dim
    else:
        config, extractor = _read_config(name, layer)
        kind, dim = config.model_type, config.hidden_size
        if kind in FILTER_BANK_TYPES:
            normalization = "mel_bin"
        else:
            normalization = "utterance" if extractor.do_normalize else "none"
            hop = math.prod(config.conv_stride)
    description = {
        "encoder": str(name),
        "encoder_type": kind,
        "layer": layer,
        "normalization": normalization,
        "normalization_eps": 0.0 if normalization == "none" else eps,
        "pooling": "none" if pooling.frames == 1 else pooling.kind,
        "pool_frames": pooling.frames,
        "frame_rate": SAMPLE_RATE / hop / pooling.frames,
        "dim": dim,
    }
    return description, extractor


def load_encoder(
    name: str,
    layer: int,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    normalization_eps: Optional[float] = None,
    window_seconds: float = WINDOW_SECONDS,
    pooling: Pooling = NO_POOLING,
) -> Encoder:
    """``mfcc``, a local directory, or a hub name, as an encoder.

    Args:
        device: torch device.
        dtype: ``float32`` or ``bfloat16``, of the products; features are float32 in either case.
        window_seconds: audio longer than this is cut.
        layer, normalization_eps, pooling: see :func:`describe_encoder`.
    """
    if not window_seconds > 0:
        raise SpireError(f"--window_seconds {window_seconds}: must be more than 0")
    check_dtype(name, dtype)
    description, extractor = _described(name, layer, normalization_eps, pooling)
    if name == MFCC:
        model = MfccModel()
    else:
        model = _load_transformer(description, extractor, device, getattr(torch, dtype))
    description = {**description, "weights": model.weights()}
    return Encoder(model, description, window_seconds=window_seconds, pooling=pooling)


def _load_transformer(description: Dict[str, Any], extractor: Any, device: str, dtype: torch.dtype):
    from transformers import AutoModel

    name = description["encoder"]
    try:
        model = AutoModel.from_pretrained(name, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise SpireError(f"--encoder {name}: {str(error).splitlines()[0]}") from None
    common = {
        "layer": description["layer"],
        "device": device,
        "dtype": dtype,
        "eps": description["normalization_eps"],
    }
    if description["encoder_type"] in FILTER_BANK_TYPES:
        return FilterBankModel(model, extractor, **common)
    return WaveformModel(model, normalize=extractor.do_normalize, **common)
