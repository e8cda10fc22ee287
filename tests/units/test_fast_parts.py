"""The parts of the fast forward pass against torch's own modules."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from espnet_spire.units.assign import Assigner
from espnet_spire.units.attention import _padded, attention
from espnet_spire.units.codebook import Codebook
from espnet_spire.units.framing import Framing, frame_windows
from espnet_spire.units.front_end import BLOCK_FRAMES, FrontEnd, framing_of
from espnet_spire.units.layout import Layout
from espnet_spire.units.matmul import linear, packed
from espnet_spire.units.position import PositionalConvolution


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_linear(rows, gelu):
    x, weight, bias = torch.randn(rows, 50), torch.randn(30, 50), torch.randn(30)
    expected = x.double() @ weight.double().T + bias.double()
    if gelu:
        expected = 0.5 * expected * (1 + torch.erf(expected / 2**0.5))
    for used in (weight, packed(weight)):
        result = linear(x, used, bias, gelu=gelu)
        torch.testing.assert_close(result.double(), expected, atol=1e-5, rtol=1e-5)
    if not gelu:
        torch.testing.assert_close(
            linear(x, weight).double(), expected - bias.double(), atol=1e-5, rtol=1e-5
        )
    rough = linear(x.bfloat16(), packed(weight.bfloat16()), bias.bfloat16(), gelu=gelu)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.double(), expected, atol=0.2, rtol=0.02)


def test_linear_reads_overlapping_rows():
    """The convolutions rely on it: windows are rows of a view, not a copy."""
    x, weight = torch.randn(100), torch.randn(8, 12)
    windows = x.as_strided((23, 12), (4, 1))
    expected = functional.conv1d(x[None, None, :100], weight[:, None], stride=4)[0].T
    for used in (weight, packed(weight)):
        torch.testing.assert_close(linear(windows, used), expected, atol=1e-5, rtol=1e-5)


def test_framing_of_hubert():
    # by hand: 10 samples; then 5 (3 - 1) more, 10 (3 - 1), 20 …: 10+10+20+40+80+80+160 = 400
    assert framing_of((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)) == Framing(400, 320)
    assert framing_of((4,), (3,)) == Framing(4, 3)
    assert [Framing(400, 320).num_frames(n) for n in (0, 399, 400, 719, 720)] == [0, 0, 1, 1, 2]


def test_windows_cover_each_frame_once():
    for frames, most in ((1, 1), (10, 3), (9, 3), (5, 100)):
        windows = frame_windows(frames, most)
        assert [n for first, last in windows for n in range(first, last)] == list(range(frames))
        assert max(last - first for first, last in windows) <= most
    with pytest.raises(ValueError, match="0 frames"):
        frame_windows(5, 0)


def test_layout_by_hand():
    rows = torch.arange(1.0, 7.0)[:, None]
    layout = Layout([1, 3, 2], rows.device)
    padded = layout.pad(rows)
    assert padded[:, :, 0].tolist() == [[1, 0, 0], [2, 3, 4], [5, 6, 0]]
    assert layout.mask.tolist() == [[True, False, False], [True] * 3, [True, True, False]]
    assert layout.unpad(padded).equal(rows)
    wider = functional.pad(padded, (0, 0, 0, 2), value=9.0)  # more than the longest
    assert layout.unpad(wider).equal(rows)
    assert Layout([3, 3], rows.device).mask is None


@pytest.mark.parametrize(("norm", "bias"), [("layer", True), ("group", False), ("group", True)])
def test_front_end_is_the_convolutions(norm, bias):
    from transformers import HubertConfig, HubertModel

    config = HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(24,) * 7,
        conv_bias=bias,
        feat_extract_norm=norm,
        num_conv_pos_embedding_groups=4,
    )
    module = HubertModel(config).feature_extractor.eval()
    for parameter in module.parameters():  # norms that are not the identity
        parameter.normal_(mean=0.0 if parameter.dim() == 3 else 0.5, std=0.2)
    # around frame and block edges
    frames = [1, 2, BLOCK_FRAMES, BLOCK_FRAMES + 1, 2 * BLOCK_FRAMES + 3]
    pieces = [0.1 * torch.randn(320 * (n - 1) + 400 + 13 * (n % 20)) + 0.05 for n in frames]
    result = FrontEnd(module)(pieces)
    expected = torch.cat([module(piece[None])[0].T for piece in pieces])
    assert len(result) == sum(frames)
    torch.testing.assert_close(result, expected, atol=1e-4, rtol=1e-4)
    # what GPUs run
    stream = FrontEnd(module)._stream(pieces)
    torch.testing.assert_close(stream, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("kernel", "groups"), [(128, 4), (16, 2), (7, 1)])
def test_positional_convolution_is_the_module(kernel, groups):
    from transformers import HubertConfig
    from transformers.models.hubert.modeling_hubert import HubertPositionalConvEmbedding

    config = HubertConfig(
        hidden_size=16, num_conv_pos_embeddings=kernel, num_conv_pos_embedding_groups=groups
    )
    module = HubertPositionalConvEmbedding(config).eval()
    module.conv.bias.normal_()
    ours = PositionalConvolution(module)
    lengths = [1, 5, ours.good - 1, ours.good, ours.good + 1, 3 * ours.good + 2]
    hidden = torch.randn(sum(lengths), 16)
    expected = torch.cat([module(part[None])[0] for part in hidden.split(lengths)])
    layout = Layout(lengths, hidden.device)
    torch.testing.assert_close(ours(hidden, layout), expected, atol=1e-5, rtol=1e-5)
    for length, part in zip(lengths, hidden.split(lengths), strict=True):  # each alone
        alone = ours(part, Layout([length], hidden.device))
        torch.testing.assert_close(alone, module(part[None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_within_each_sequence(dtype):
    lengths = [1, 3, 600, 255, 256]
    query, key, value = (torch.randn(sum(lengths), 24).to(dtype) for _ in range(3))
    expected = []
    for q, k, v in zip(*(x.double().split(lengths) for x in (query, key, value)), strict=True):
        heads = []
        for head in range(3):
            part = slice(8 * head, 8 * head + 8)
            heads.append((q[:, part] @ k[:, part].T / 8**0.5).softmax(dim=1) @ v[:, part])
        expected.append(torch.cat(heads, dim=1))
    expected = torch.cat(expected)
    atol = 1e-5 if dtype == torch.float32 else 0.03
    for function in (attention, _padded):  # the second is what GPUs run
        result = function(query, key, value, Layout(lengths, query.device), 3)
        assert result.dtype == dtype
        torch.testing.assert_close(result.double(), expected, atol=atol, rtol=atol)
    same = Layout([5, 5], query.device)  # no mask is needed
    result = _padded(query[:10], key[:10], value[:10], same, 3)
    expected = attention(query[:10], key[:10], value[:10], same, 3)
    torch.testing.assert_close(result, expected, atol=atol, rtol=atol)


@pytest.mark.parametrize("mean", [0.0, 100.0])
def test_assigned_units_are_the_nearest_in_float64(mean):
    """A mean that all share does not eat the precision."""
    centroids = torch.randn(700, 20) * 0.1 + mean
    features = torch.randn(3000, 20) * 0.1 + mean
    # frames on the border of two centroids, but for the last bits
    pairs = torch.randint(700, (500, 2))
    near = centroids[:500] + 0.001
    for row, (one, other) in enumerate(pairs):
        share = 0.5 + 1e-6 * (-1) ** row
        near[row] = share * centroids[one] + (1 - share) * centroids[other]
    features = torch.cat([features, near])
    units, margins = Assigner(Codebook(centroids, {}))(features)
    distances = torch.cdist(features.double(), centroids.double())
    ordered, order = distances.sort(dim=1)
    assert units.equal(order[:, 0])
    between = torch.linalg.norm(
        centroids[order[:, 0]].double() - centroids[order[:, 1]].double(), dim=1
    )
    expected = (ordered[:, 1] ** 2 - ordered[:, 0] ** 2) / (2 * between)
    expected = expected / features.double().norm(dim=1)
    known = torch.isfinite(margins)
    assert known.sum() > 100
    torch.testing.assert_close(margins[known], expected[known], atol=1e-12, rtol=1e-6)
    assert (expected[~known] > 5e-5).all()


def test_equal_centroids_are_the_first_of_them():
    centroids = torch.tensor([[5.0, 5.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [0.5, 0.5]])
    units, margins = Assigner(Codebook(centroids, {}))(features)
    assert units.tolist() == [1, 1, 3, 1]  # the last lies between 1 and 3
    assert margins[3] == 0
    alone = Assigner(Codebook(centroids[1:3], {}))(features)
    assert alone.units.tolist() == [0] * 4
    assert np.isinf(alone.margins.numpy()).all()
