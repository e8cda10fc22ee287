"""Speech models as encoders see them: samples, or features of samples, to the output of block L.

Every model gives its features twice: :meth:`encode` for many pieces at once as fast as the
machine goes, in float32 or bfloat16, and :meth:`encode_alone`, transformers' own forward pass of
one piece in float32. The second is what units are defined by, and what the first is checked
against.
"""

import copy
import hashlib
from typing import Any, List, Optional

import numpy as np
import torch
from torch import Tensor

from espnet_spire.units.framing import HUBERT_FRAMING, Framing, frame_windows
from espnet_spire.units.front_end import FrontEnd
from espnet_spire.units.layout import Layout
from espnet_spire.units.mfcc import MFCC_DIM, mfcc
from espnet_spire.units.packed import PackedTransformer, can_pack

# ε of zero-mean unit-variance normalisation in transformers' feature extractors.
NORMALIZE_EPS = 1e-7


def normalize_samples(samples: np.ndarray, eps: float = NORMALIZE_EPS) -> np.ndarray:
    """Zero mean and unit variance over an utterance's own samples: (x - μ) / √(σ² + ε)."""
    mean = samples.mean(dtype=np.float64)
    # float32 from here on, in place: of an hour of audio there are no copies in float64
    centred = samples - np.float32(mean)
    variance = float(np.dot(centred, centred)) / len(samples)
    centred *= np.float32(1 / np.sqrt(variance + eps))
    return centred


def calibration_sound() -> np.ndarray:
    """Five seconds of noise that rises, falls and pauses like speech; the same always."""
    rng = np.random.default_rng(0)
    seconds, rate = 5, 16000
    spectrum = np.fft.rfft(rng.standard_normal(seconds * rate))
    spectrum /= 1 + np.fft.rfftfreq(seconds * rate, 1 / rate) / 500  # louder below 500 Hz
    loudness = rng.uniform(size=10 * seconds + 1) ** 2  # ten times a second
    loudness[20:25] = 0
    times = np.arange(seconds * rate) / rate
    envelope = np.interp(times, np.arange(10 * seconds + 1) / 10, loudness)
    return (0.05 * envelope * np.fft.irfft(spectrum, seconds * rate)).astype(np.float32)


def truncate(model: torch.nn.Module, layer: int) -> None:
    """Let ``last_hidden_state`` be the residual stream after block ``layer``: no final norm."""
    model.encoder.layers = model.encoder.layers[:layer]
    for after in ("adapter", "intermediate_ffn"):  # what some fine-tuned models add behind
        if getattr(model, after, None) is not None:
            setattr(model, after, None)
    if getattr(model.config, "do_stable_layer_norm", False):
        # Pre-norm models normalise after the last block, which layer L must not see;
        # post-norm models normalise before the first block.
        model.encoder.layer_norm = torch.nn.Identity()


class MfccModel:
    """MFCCs under the models' interface; one piece is a whole utterance."""

    framing = HUBERT_FRAMING
    dim = MFCC_DIM
    device = "cpu"
    dtype = torch.float32
    exact = True  # every piece is computed alone
    # They are normalised over the utterance, so windows would change them; they cost little.
    can_cut = False

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        return samples

    def piece(self, prepared: np.ndarray, first: int, last: Optional[int]) -> np.ndarray:
        return prepared

    def encode(self, pieces: List[np.ndarray], lengths: List[int]) -> Tensor:
        return torch.cat([mfcc(piece) for piece in pieces])

    def encode_alone(self, piece: np.ndarray) -> Tensor:
        return mfcc(piece)

    def weights(self) -> Optional[str]:
        return None


class _Transformer:
    """What waveform and filter-bank models share."""

    can_cut = True

    def __init__(self, model: torch.nn.Module, *, layer: int, device: str, dtype: torch.dtype):
        truncate(model, layer)
        if torch.device(device).type == "cuda":
            # Else transformers' convolutions round their inputs to 10 bits.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        self.model = model.eval().requires_grad_(False).to(device)
        self.device = device
        self.dtype = dtype
        self.exact = False
        self.dim = model.config.hidden_size
        self._offset: Optional[Tensor] = None

    def weights(self) -> str:
        """A digest of all weights up to block L: what tells two models of one shape apart."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    def _calibrate(self) -> None:
        """Learn what bfloat16 adds to every frame alike, which encode() then takes away.

        Rounding the weights moves all frames by nearly the same vector, half of the whole error.
        """
        if self.dtype == torch.float32:
            return
        piece = self.piece(self.prepare(calibration_sound()), 0, None)
        exact = self.encode_alone(piece)
        self._offset = (self.encode([piece], [len(exact)]) - exact).mean(dim=0)

    def _corrected(self, features: Tensor) -> Tensor:
        return features if self._offset is None else features - self._offset

    def _plain(self) -> torch.nn.Module:
        """transformers' model in the precision of :meth:`encode`."""
        if self.dtype == torch.float32:
            return self.model
        return copy.deepcopy(self.model).to(self.dtype)

    def _tensors(self, pieces: List[np.ndarray]) -> List[Tensor]:
        return [torch.from_numpy(np.ascontiguousarray(piece)).to(self.device) for piece in pieces]

    @torch.inference_mode()
    def encode_alone(self, piece: np.ndarray) -> Tensor:
        """transformers' own forward pass of one piece in float32: (frames, D)."""
        (tensor,) = self._tensors([piece])
        return self.model(tensor[None]).last_hidden_state[0]


class WaveformModel(_Transformer):
    """HuBERT, mHuBERT, WavLM, wav2vec 2.0.

    Args:
        model: transformers' model, float32, whole.
        layer: L, from 1.
        device: torch device.
        dtype: of the products of :meth:`encode`.
        normalize: whether the model wants zero mean and unit variance.
        eps: ε of that.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        layer: int,
        device: str,
        dtype: torch.dtype,
        normalize: bool,
        eps: float,
    ) -> None:
        super().__init__(model, layer=layer, device=device, dtype=dtype)
        self.normalize = normalize
        self.eps = eps
        self.front_end = FrontEnd(self.model.feature_extractor)
        self.framing: Framing = self.front_end.framing
        if can_pack(model.config):
            self.packed = PackedTransformer(self.model, dtype)
        else:
            self.packed = None
            self.plain = self._plain()
        self._calibrate()

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Normalise a whole utterance: float32 (samples,)."""
        return normalize_samples(samples, self.eps) if self.normalize else samples

    def piece(self, prepared: np.ndarray, first: int, last: Optional[int]) -> np.ndarray:
        """The samples of frames ``first`` to ``last``, or to the end of the utterance."""
        end = None if last is None else (last - 1) * self.framing.hop + self.framing.window
        return prepared[first * self.framing.hop : end]

    @torch.inference_mode()
    def encode(self, pieces: List[np.ndarray], lengths: List[int]) -> Tensor:
        """Features of all pieces, one after the other.

        Args:
            pieces: what :meth:`piece` gave.
            lengths: frames of each.

        Returns:
            float32 on the model's device, (sum of lengths, D).
        """
        frames = self.front_end(self._tensors(pieces))
        if self.packed is not None:
            return self._corrected(self.packed(frames, lengths))
        layout = Layout(lengths, frames.device)
        hidden = self.plain.feature_projection(layout.pad(frames.to(self.dtype)))
        if isinstance(hidden, tuple):  # WavLM and wav2vec 2.0 also return the normalised input
            hidden = hidden[0]
        output = self.plain.encoder(hidden, attention_mask=layout.mask).last_hidden_state
        return self._corrected(layout.unpad(output.float()))


class FilterBankModel(_Transformer):
    """w2v-BERT 2.0: 80 log mel energies each 10 ms, two of them a frame, into a conformer.

    Args:
        model: transformers' ``Wav2Vec2BertModel``, float32, whole.
        extractor: its ``SeamlessM4TFeatureExtractor``.
        eps: ε of the normalisation of each energy over the utterance.
    """

    # two windows of 400 samples, 160 apart, each 320 samples
    framing = Framing(window=560, hop=320)

    def __init__(
        self,
        model: torch.nn.Module,
        extractor: Any,
        *,
        layer: int,
        device: str,
        dtype: torch.dtype,
        eps: float,
    ) -> None:
        super().__init__(model, layer=layer, device=device, dtype=dtype)
        self.eps = eps
        self.mel_filters = np.asarray(extractor.mel_filters)  # (257, 80)
        self.window = np.asarray(extractor.window)
        self.plain = self._plain()
        self._calibrate()

    def prepare(self, samples: np.ndarray) -> np.ndarray:
        """Kaldi's filter bank as transformers' extractor computes it: float32 (frames, 160)."""
        energies = np.concatenate(
            [
                self._energies(samples[160 * first : 160 * (last - 1) + 400])
                for first, last in frame_windows((len(samples) - 400) // 160 + 1, 5000)
            ]
        )
        mean = energies.mean(axis=0)
        variance = energies.var(axis=0, ddof=1)
        energies = (energies - mean) / np.sqrt(variance + self.eps)
        # an odd one at the end counts for the mean and is then left out
        return energies[: len(energies) // 2 * 2].reshape(-1, 160)

    def _energies(self, samples: np.ndarray) -> np.ndarray:
        """Log mel energies of windows of 400 samples, 160 apart: float32 (windows, 80)."""
        # 16-bit range, as Kaldi has it
        windows = np.lib.stride_tricks.sliding_window_view(samples * np.float32(2**15), 400)[::160]
        # each window alone: no mean, 0.97 pre-emphasis, Povey window
        windows = windows - windows.mean(axis=1, keepdims=True, dtype=np.float64)
        emphasized = windows.copy()
        emphasized[:, 1:] -= 0.97 * windows[:, :-1]
        emphasized[:, 0] *= 1 - 0.97
        power = np.abs(np.fft.rfft(emphasized * self.window, n=512)) ** 2
        floor = 1.192092955078125e-07
        return np.log(np.maximum(floor, power @ self.mel_filters)).astype(np.float32)

    def piece(self, prepared: np.ndarray, first: int, last: Optional[int]) -> np.ndarray:
        """Frames ``first`` to ``last`` of the filter bank."""
        return prepared[first:last]

    @torch.inference_mode()
    def encode(self, pieces: List[np.ndarray], lengths: List[int]) -> Tensor:
        """See :meth:`WaveformModel.encode`."""
        frames = torch.cat(self._tensors(pieces)).to(self.dtype)
        layout = Layout(lengths, frames.device)
        output = self.plain(layout.pad(frames), attention_mask=layout.mask).last_hidden_state
        return self._corrected(layout.unpad(output.float()))
