"""Rows of embedding matrices for tokens that a model has never seen."""

import contextlib
from typing import Iterator, Tuple

import torch

from espnet_spire.utils.errors import SpireError

ROW_MULTIPLE = 64
# The covariance of the existing rows is scaled by this (paper, section 3.2.2; Hewitt 2021).
COVARIANCE_SCALE = 1e-5
# Bounds what is held at a time, of the matrix as of the numbers drawn: 128 MiB of float32.
_MAX_BLOCK = 2**25


def padded_rows(size: int) -> int:
    """``size`` rounded up to a multiple of 64."""
    return -(-size // ROW_MULTIPLE) * ROW_MULTIPLE


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order whatever the number of threads, so that a seed gives the same rows."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def draw_rows(
    weight,
    size: int,
    count: int,
    generator: torch.Generator,
    *,
    method: str = "gaussian",
) -> torch.Tensor:
    """New rows for an embedding matrix.

    ``gaussian`` draws from N(mean, 1e-5 · covariance) of the existing rows (paper, section
    3.2.2). A draw written as mean + √(1e-5/(N-1)) · zᵀ(E - mean) with z ~ N(0, I_N) has that
    covariance exactly, without forming or factoring it, and is a sum over blocks of rows: no more
    than a block of E is held at a time. ``mean`` repeats the mean.

    Args:
        weight: the matrix, shape (≥ size, D), any float type: a tensor, or whatever gives one for
            ``weight[start:end]``, such as a slice of a safetensors file.
        size: N: the first so many rows are of real tokens; others (padding) take no part.
        count: how many rows to make.
        generator: where the randomness comes from. The same for any number of threads.
        method: ``gaussian`` or ``mean``.

    Returns:
        float32, shape (count, D).
    """
    if method not in ("gaussian", "mean"):
        raise SpireError(f"--init {method}: choose gaussian or mean")
    block = max(1, min(size, _MAX_BLOCK // max(count, weight[:1].shape[1])))
    borders = [(start, min(start + block, size)) for start in range(0, size, block)]
    with _one_thread():
        mean = _mean(weight, size, borders)
        if method == "mean":
            return mean.repeat(count, 1)
        scale = (COVARIANCE_SCALE / (size - 1)) ** 0.5
        offsets = torch.zeros(count, mean.shape[1])
        for start, end in borders:
            centred = weight[start:end].to(torch.float32) - mean
            drawn = torch.randn(count, end - start, generator=generator)
            offsets.addmm_(drawn, centred, alpha=scale)
        return mean + offsets


def _mean(weight, size: int, borders: list[Tuple[int, int]]) -> torch.Tensor:
    """Mean of the first ``size`` rows, float32, shape (1, D); summed in float64."""
    total = sum(weight[start:end].to(torch.float64).sum(dim=0) for start, end in borders)
    return (total / size).to(torch.float32).unsqueeze(0)
