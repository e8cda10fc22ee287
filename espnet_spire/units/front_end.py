"""The convolutions that turn samples into frames, as matrix products.

transformers keeps (batch, channels, time): narrow convolutions and, where there are layer norms,
two transposes a layer. Here time comes first, so that the windows of a convolution are rows of
an overlapping view and each layer is one matrix product. Utterances go through one by one, in
blocks that stay in the processor's cache: no padding, nothing that one utterance could see of
another.
"""

from typing import List, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional

from espnet_spire.units.framing import Framing, frame_windows
from espnet_spire.units.matmul import linear

# Frames a block: the widest layer has 64 rows of 512 numbers a frame.
BLOCK_FRAMES = 100


class _Layer(NamedTuple):
    weight: Tensor  # (channels out, kernel * channels in), for linear()
    bias: Optional[Tensor]
    kernel: int
    stride: int
    norm: Optional[torch.nn.Module]


def framing_of(kernels, strides) -> Framing:
    """What one output of a stack of unpadded convolutions sees."""
    window, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        window += (kernel - 1) * hop
        hop *= stride
    return Framing(window, hop)


class FrontEnd:
    """The ``feature_extractor`` of a HuBERT, WavLM or wav2vec 2.0 model.

    Always float32: rounding the samples to bfloat16 would put noise 54 dB below the speech, and
    bfloat16 in the layers after the first would change one unit in a hundred to save a twentieth
    of the time.

    Args:
        feature_extractor: transformers' module, float32.
    """

    def __init__(self, feature_extractor: torch.nn.Module) -> None:
        self.group_norm = None
        self.layers: List[_Layer] = []
        for layer in feature_extractor.conv_layers:
            conv = layer.conv
            norm = getattr(layer, "layer_norm", None)
            if isinstance(norm, torch.nn.GroupNorm):
                self.group_norm, norm = norm, None
            self.layers.append(
                _Layer(
                    weight=conv.weight.detach().transpose(1, 2).flatten(1).contiguous(),
                    bias=None if conv.bias is None else conv.bias.detach(),
                    kernel=conv.kernel_size[0],
                    stride=conv.stride[0],
                    norm=norm,
                )
            )
        self.framing = framing_of(
            [layer.kernel for layer in self.layers], [layer.stride for layer in self.layers]
        )

    def __call__(self, pieces: List[Tensor]) -> Tensor:
        """Frames of all pieces, one after the other.

        Args:
            pieces: float32 samples, each (samples,) with at least one frame.

        Returns:
            float32, (sum of frames, channels).
        """
        if pieces[0].device.type != "cpu":
            return self._stream(pieces)
        return torch.cat([block for piece in pieces for block in self._blocks(piece)])

    def _blocks(self, samples: Tensor) -> List[Tensor]:
        first = self._first(samples)
        frames = self.framing.num_frames(len(samples))
        blocks = -(-frames // BLOCK_FRAMES)
        hop, window = self.framing.hop, self.framing.window
        return [
            self._rest(_convolve(samples[start * hop : (end - 1) * hop + window, None], first))
            for start, end in frame_windows(frames, -(-frames // blocks))
        ]

    def _stream(self, pieces: List[Tensor]) -> Tensor:
        """All pieces as one long recording, each at a multiple of the hop: a few large products.

        The frames that would see two pieces are left out; no other is touched by its neighbours.
        """
        hop = self.framing.hop
        rate = hop // self.layers[0].stride  # rows of the first layer a frame
        spare = -(-(self.framing.window - hop) // hop)
        rows, kept, place = [], [], 0
        for piece in pieces:
            frames = self.framing.num_frames(len(piece))
            used = piece[: (frames - 1) * hop + self.framing.window, None]
            first = _convolve(used, self._first(piece))
            rows.append(functional.pad(first, (0, 0, 0, (frames + spare) * rate - len(first))))
            kept.append(torch.arange(place, place + frames, device=piece.device))
            place += frames + spare
        return self._rest(torch.cat(rows))[torch.cat(kept)]

    def _first(self, samples: Tensor) -> _Layer:
        layer = self.layers[0]
        return layer if self.group_norm is None else self._normalized(layer, samples)

    def _rest(self, hidden: Tensor) -> Tensor:
        for layer in self.layers[1:]:
            hidden = _convolve(hidden, layer)
        return hidden

    def _normalized(self, layer: _Layer, samples: Tensor) -> _Layer:
        """Fold the group norm over time that follows the first layer into its weights.

        A channel's mean and variance over all windows follow from the mean and the covariance of
        the windows' samples (10 and 10 x 10 numbers), so the layer's output is never held whole.
        """
        norm = self.group_norm
        windows = samples.double().unfold(0, layer.kernel, layer.stride)
        mean = windows.mean(dim=0)
        centred = windows - mean
        covariance = centred.T @ centred / len(windows)
        weight = layer.weight.double()
        variance = ((weight @ covariance) * weight).sum(dim=1)
        scale = norm.weight.double() / torch.sqrt(variance + norm.eps)
        # the layer's own bias is part of the mean that the norm takes away
        bias = norm.bias.double() - scale * (weight @ mean)
        return layer._replace(weight=(weight * scale[:, None]).float(), bias=bias.float())


def _convolve(hidden: Tensor, layer: _Layer) -> Tensor:
    """One layer: (time, channels in) → (time', channels out)."""
    channels = hidden.shape[1]
    frames = (len(hidden) - layer.kernel) // layer.stride + 1
    rows = hidden.as_strided(
        (frames, layer.kernel * channels), (layer.stride * channels, 1), hidden.storage_offset()
    )
    if layer.norm is None:
        return linear(rows, layer.weight, layer.bias, gelu=True)
    norm = layer.norm
    output = linear(rows, layer.weight, layer.bias)
    output = functional.layer_norm(output, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
    return functional.gelu(output)
