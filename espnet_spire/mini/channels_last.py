"""HuBERT's convolutional front end as matrix products over (batch, time, channels).

transformers keeps (batch, channels, time) and transposes around each layer norm; on a CPU those
copies and the narrow convolutions cost more than the arithmetic. Same parameters, same numbers
(to rounding), about half the time of a training step on two cores.
"""

import torch
from torch import Tensor
from torch.nn import functional


def strided_conv(hidden: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """``conv1d`` without padding, channels last, for kernels of at most twice the stride.

    Args:
        hidden: (batch, time, channels in).
        weight: (channels out, channels in, kernel), as in ``torch.nn.Conv1d``.
        bias: (channels out,).
        stride: hop in time steps; ``stride <= kernel <= 2 * stride``.

    Returns:
        (batch, (time - kernel) // stride + 1, channels out).

    Raises:
        ValueError: kernel and stride do not go together, or ``time < kernel``.
    """
    batch, time, channels = hidden.shape
    kernel = weight.shape[2]
    if not stride <= kernel <= 2 * stride:
        raise ValueError(f"kernel {kernel} is not between stride {stride} and twice the stride")
    if time < kernel:
        raise ValueError(f"{time} time steps are fewer than the kernel's {kernel}")
    frames = (time - kernel) // stride + 1
    # Cut time into blocks of one stride: a plain view. A window is one block and the first
    # ``kernel - stride`` steps of the next, so no sample is copied to unfold overlapping windows.
    overlap = kernel - stride
    blocks = frames + (overlap > 0)
    if time < blocks * stride:
        hidden = functional.pad(hidden, (0, 0, 0, blocks * stride - time))
    view = hidden[:, : blocks * stride].reshape(batch, blocks, stride * channels)
    flat = weight.permute(0, 2, 1)
    output = functional.linear(view[:, :frames], flat[:, :stride].flatten(1), bias)
    if overlap:
        following = view[:, 1:, : overlap * channels]
        output = output + functional.linear(following, flat[:, stride:].flatten(1))
    return output


def front_end(feature_extractor: torch.nn.Module, waveforms: Tensor) -> Tensor:
    """What transformers' ``HubertFeatureEncoder`` gives with ``feat_extract_norm="layer"``.

    Args:
        feature_extractor: ``HubertModel.feature_extractor``.
        waveforms: (batch, samples).

    Returns:
        (batch, frames, channels): the module's own output, transposed.
    """
    hidden = waveforms.unsqueeze(-1)
    for layer in feature_extractor.conv_layers:
        conv = layer.conv
        hidden = strided_conv(hidden, conv.weight, conv.bias, conv.stride[0])
        hidden = layer.activation(layer.layer_norm(hidden))
    return hidden
