import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor

from espnet_spire.baselines.ctc_data import (
    LengthBuckets,
    Padded,
    needed_frames,
    read_spoken,
)


def frames(samples):
    return samples // 320  # of 20 ms


def test_what_ctc_cannot_use_is_rejected(tmp_path, make_data_dir):
    silence = np.full(16000, 0.1, np.float32)
    data = make_data_dir(
        tmp_path / "d",
        {"fits": silence, "long": np.tile(silence, 3), "no": silence, "tight": silence[:1280]},
        # 1280 samples are 4 frames: "all" needs one between its equal characters, too
        texts={"fits": "It’s All.", "long": "a", "no": "…", "tight": "abba"},
    )
    found = read_spoken(data, frames, max_seconds=2.0)
    assert [(u.key, u.num_samples, u.text) for u in found.utterances] == [
        ("fits", 16000, "it's all")
    ]
    assert found.rejected == {
        "long": "3.0 s are more than max_seconds (2)",
        "no": "it has no transcript, or one without words",
        "tight": "4 frames are too few for 4 characters",
    }
    (data / "audio/fits.wav").unlink()
    assert "no such audio file" in read_spoken(data, frames, max_seconds=2.0).rejected["fits"]


def test_needed_frames():
    assert [needed_frames(text) for text in ("", "a", "ab", "aa", "all aabb")] == [0, 1, 2, 3, 11]


def test_padded():
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    long, short = np.arange(6, dtype=np.float32), np.arange(4, dtype=np.float32)
    batch = Padded(extractor)(
        [{"input_values": long, "labels": [3, 4]}, {"input_values": short, "labels": [5, 6, 7]}]
    )
    assert batch["labels"].tolist() == [[3, 4, -100], [5, 6, 7]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1] * 4 + [0] * 2]
    # zero mean and unit variance of each utterance, whatever the padding
    for row, samples in zip(batch["input_values"], (long, short), strict=True):
        expected = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        torch.testing.assert_close(row[: len(samples)], torch.from_numpy(expected))
    assert (batch["input_values"][1, 4:] == 0).all()


def test_buckets_are_of_similar_length_and_known_by_epoch():
    lengths = np.random.default_rng(0).integers(1, 1000, 400).tolist()
    sampler = LengthBuckets(lengths, 4, seed=1)
    first = list(sampler)
    assert sorted(first) == list(range(400)) and list(sampler) == first
    spread = [np.ptp([lengths[i] for i in first[k : k + 4]]) for k in range(0, 400, 4)]
    assert np.median(spread) < 60  # of 1000; drawn blindly it would be about 600
    sampler.set_epoch(1)
    assert list(sampler) != first
    again = LengthBuckets(lengths, 4, seed=1)
    again.set_epoch(1)
    assert list(again) == list(sampler)
    assert list(LengthBuckets(lengths, 4, seed=2)) != first
