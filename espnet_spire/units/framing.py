"""Which samples a frame sees, how many frames there are, and how long audio is cut."""

from typing import List, NamedTuple, Tuple


class Framing(NamedTuple):
    """Frame *i* sees samples ``[hop i, hop i + window)`` of 16 kHz audio."""

    window: int
    hop: int

    def num_frames(self, num_samples: int) -> int:
        """Frames that lie wholly inside."""
        return max(0, (num_samples - self.window) // self.hop + 1)


# 25 ms each 20 ms: what HuBERT's, WavLM's and wav2vec 2.0's convolutions see.
HUBERT_FRAMING = Framing(window=400, hop=320)


def frame_windows(num_frames: int, most: int, *, tail: int = 0) -> List[Tuple[int, int]]:
    """Cut frames 0 … n-1 into consecutive windows ``[first, last)`` of ``most`` frames.

    The last is what is left; fewer than ``tail`` frames are joined to the window before them.

    >>> frame_windows(7, 3)
    [(0, 3), (3, 6), (6, 7)]
    >>> frame_windows(7, 3, tail=2)
    [(0, 3), (3, 7)]
    """
    if most < 1:
        raise ValueError(f"a window of {most} frames")
    firsts = list(range(0, num_frames, most))
    if len(firsts) > 1 and num_frames - firsts[-1] < tail:
        firsts.pop()
    return list(zip(firsts, [*firsts[1:], num_frames], strict=True))
