"""HuBERT's positional convolution (128 frames wide) through the Fourier transform.

Written as a sum it costs two thirds of a transformer block; as a product of spectra a fiftieth of
that, and float32 results agree to rounding. Overlap-save: blocks of ``N`` frames give
``N - kernel + 1`` good ones.
"""

import torch
from torch import Tensor
from torch.nn import functional

from espnet_spire.units.layout import Layout


class PositionalConvolution:
    """The ``pos_conv_embed`` of a HuBERT or wav2vec 2.0 model, for sequences in a row.

    Args:
        module: transformers' module; a grouped convolution, the last frame dropped when the
            kernel is even, then GELU.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        weight = module.conv.weight.detach().float()  # (out, in / groups, kernel)
        width, self.channels, self.kernel = weight.shape
        self.groups = module.conv.groups
        self.left = module.conv.padding[0]
        self.points = 1 << (4 * self.kernel - 1).bit_length()
        self.good = self.points - self.kernel + 1
        # convolution layers correlate: reversed in time it is a product of spectra
        spectrum = torch.fft.rfft(weight.flip(2), n=self.points)
        spectrum = spectrum.view(self.groups, width // self.groups, self.channels, -1)
        # (groups * bins, in, out)
        self.spectrum = spectrum.permute(0, 3, 2, 1).flatten(0, 1).contiguous()
        self.bias = module.conv.bias.detach().float()

    def __call__(self, hidden: Tensor, layout: Layout) -> Tensor:
        """GELU(conv(hidden)) of each sequence; float32 (frames of all, width), as the input."""
        sequences, count = len(layout.lengths), -(-layout.longest // self.good)
        # zeros around each sequence, as the module pads it, and up to a whole number of blocks
        total = self.points + (count - 1) * self.good
        right = total - self.left - layout.longest
        padded = functional.pad(layout.pad(hidden), (0, 0, self.left, right))
        blocks = padded.unfold(1, self.points, self.good).flatten(0, 1)
        spectra = torch.fft.rfft(blocks)  # (blocks, width, bins)
        number, width, bins = spectra.shape
        rows = spectra.view(number, self.groups, self.channels, bins).permute(1, 3, 0, 2)
        rows = torch.bmm(rows.reshape(self.groups * bins, number, self.channels), self.spectrum)
        rows = rows.view(self.groups, bins, number, -1).permute(2, 0, 3, 1)
        output = torch.fft.irfft(rows.reshape(number, width, bins), n=self.points)
        output = output[:, :, self.kernel - 1 :].transpose(1, 2)  # (blocks, good frames, width)
        output = output.reshape(sequences, count * self.good, width)
        return functional.gelu(layout.unpad(output) + self.bias)
