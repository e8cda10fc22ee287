"""Speech encoders: samples in, the features that k-means clusters out.

Layer L of a transformer encoder is the residual stream after block L, *without* the final layer
norm: ``hidden_states[L]`` of transformers. A batch gives what one utterance at a time gives.
"""

from typing import Any, Dict, List, Sequence

import numpy as np
import torch

from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.mfcc import HOP, MFCC_DIM, mfcc, num_frames
from espnet_spire.utils.errors import SpireError

# ε of zero-mean unit-variance normalisation in transformers' feature extractors.
NORMALIZE_EPS = 1e-7


def normalize_samples(samples: np.ndarray, eps: float = NORMALIZE_EPS) -> np.ndarray:
    """Zero mean and unit variance over an utterance's own samples: (x - μ) / √(σ² + ε)."""
    mean = samples.mean(dtype=np.float64)
    variance = samples.var(dtype=np.float64)
    return ((samples - mean) / np.sqrt(variance + eps)).astype(np.float32)


class MfccEncoder:
    """MFCCs under the encoders' interface; the layer is always 0."""

    dim = MFCC_DIM

    def __init__(self) -> None:
        self.description = _describe("mfcc", "mfcc", 0, "none", 0.0, MFCC_DIM)

    def __call__(self, batch: Sequence[np.ndarray]) -> List[torch.Tensor]:
        return [mfcc(samples) for samples in batch]


class TransformerEncoder:
    """Blocks 1 … L of a Hugging Face speech encoder (HuBERT, WavLM, wav2vec 2.0).

    Args:
        name: directory or hub name.
        layer: L, from 1.
        device: torch device.
        dtype: float32 or bfloat16; results are float32 in either case.
        eps: ε of the normalisation of the samples, where the model wants one.
    """

    def __init__(
        self,
        name: str,
        layer: int,
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        eps: float = NORMALIZE_EPS,
    ) -> None:
        from transformers import AutoFeatureExtractor, AutoModel

        try:
            extractor = AutoFeatureExtractor.from_pretrained(name)
            model = AutoModel.from_pretrained(name, dtype=dtype)
        except (OSError, ValueError) as error:
            raise SpireError(f"--encoder {name}: {str(error).splitlines()[0]}") from None
        config = model.config
        if config.model_type not in ("hubert", "wavlm", "wav2vec2"):
            raise SpireError(f"--encoder {name}: model type {config.model_type} is not supported")
        if extractor.sampling_rate != SAMPLE_RATE:
            raise SpireError(f"--encoder {name}: wants {extractor.sampling_rate} Hz, not 16000")
        if not 1 <= layer <= config.num_hidden_layers:
            raise SpireError(f"--layer {layer}: {name} has layers 1 to {config.num_hidden_layers}")
        model.encoder.layers = model.encoder.layers[:layer]
        if config.do_stable_layer_norm:
            # Pre-norm models normalise after the last block, which layer L must not see;
            # post-norm models normalise before the first block.
            model.encoder.layer_norm = torch.nn.Identity()
        self.model = model.eval().to(device)
        self.device = device
        self.dtype = dtype
        self.dim = config.hidden_size
        self.normalize = extractor.do_normalize
        self.eps = eps
        # Group norm runs over time, so padding would change every frame of shorter utterances.
        self.can_pad = config.feat_extract_norm == "layer"
        self.description = _describe(
            str(name),
            config.model_type,
            layer,
            "utterance" if self.normalize else "none",
            eps if self.normalize else 0.0,
            self.dim,
        )

    @torch.inference_mode()
    def __call__(self, batch: Sequence[np.ndarray]) -> List[torch.Tensor]:
        """Encode utterances.

        Args:
            batch: float32 samples at 16 kHz, each of shape (samples,), at least 400.

        Returns:
            float32 on the CPU, each of shape (frames, D).
        """
        if not self.can_pad and len({len(samples) for samples in batch}) > 1:
            return [self([samples])[0] for samples in batch]
        lengths = [len(samples) for samples in batch]
        for length in lengths:
            if num_frames(length) < 1:
                raise ValueError(f"{length} samples are shorter than one frame")
        padded = torch.zeros(len(batch), max(lengths))
        mask = torch.zeros(len(batch), max(lengths), dtype=torch.long)
        for row, samples in enumerate(batch):
            if self.normalize:
                samples = normalize_samples(samples, self.eps)
            padded[row, : len(samples)] = torch.from_numpy(np.ascontiguousarray(samples))
            mask[row, : len(samples)] = 1
        hidden = self.model(
            padded.to(self.device, self.dtype),
            # Without padding no mask: the fast path of attention.
            attention_mask=mask.to(self.device) if len(set(lengths)) > 1 else None,
        ).last_hidden_state.float()
        hidden = hidden.cpu()
        frames = [num_frames(length) for length in lengths]
        return [hidden[row, :count] for row, count in enumerate(frames)]


def _describe(
    name: str, kind: str, layer: int, normalization: str, eps: float, dim: int
) -> Dict[str, Any]:
    return {
        "encoder": name,
        "encoder_type": kind,
        "layer": layer,
        "normalization": normalization,
        "normalization_eps": eps,
        "frame_rate": SAMPLE_RATE / HOP,
        "dim": dim,
    }


def load_encoder(name: str, layer: int, *, device: str = "cpu", dtype: str = "float32"):
    """``mfcc``, a local directory, or a hub name, as an encoder."""
    if name == "mfcc":
        return MfccEncoder()
    return TransformerEncoder(name, layer, device=device, dtype=getattr(torch, dtype))
