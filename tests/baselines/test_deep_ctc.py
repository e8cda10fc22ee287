"""The CTC model: its loss by enumeration, batches, a directory that needs no package of ours."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from transformers import AutoConfig, Wav2Vec2FeatureExtractor

from espnet_spire.baselines.deep_ctc import HubertDeepCtc

HEAD = {"head_layers": 3, "head_size": 24, "head_activation": "gelu", "head_dropout": 0.3}


def load(encoder):
    config = AutoConfig.from_pretrained(encoder)
    for name, value in {**HEAD, "vocab_size": 5}.items():
        setattr(config, name, value)
    torch.manual_seed(3)
    return HubertDeepCtc.from_pretrained(encoder, config=config).eval()


@pytest.fixture(scope="module")
def model(stable_hubert):
    return load(stable_hubert)


def batch_of(waveforms):
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    return extractor(waveforms, sampling_rate=16000, padding=True, return_tensors="pt")


def collapsed(path):
    return [token for token, _ in itertools.groupby(path) if token != 0]


def enumerated_loss(probabilities, labels):
    """-log of the probability of all frames' labels that collapse to ``labels``."""
    frames, vocabulary = probabilities.shape
    total = 0.0
    for path in itertools.product(range(vocabulary), repeat=frames):
        if collapsed(path) == labels:
            total += math.prod(probabilities[i, token].item() for i, token in enumerate(path))
    return -math.log(total)


def test_three_hidden_layers(model):
    sizes = [(m.in_features, m.out_features) for m in model.head if hasattr(m, "in_features")]
    assert sizes == [(32, 24), (24, 24), (24, 24)]
    assert sum(type(m).__name__ == "Dropout" and m.p == 0.3 for m in model.head) == 3
    assert (model.lm_head.in_features, model.lm_head.out_features) == (24, 5)


def test_loss_by_enumeration(model, make_audio):
    # 6 and 4 frames; the longer has two equal characters, between which a blank must be
    waveforms = [make_audio(0.13, 1), make_audio(0.09, 2)]
    labels = [[3, 3, 4], [2, 4]]
    batch = batch_of(waveforms)
    padded = torch.tensor([[3, 3, 4], [2, 4, -100]])
    with torch.no_grad():
        loss = model(**batch, labels=padded).loss
    expected = []
    for samples, text in zip(waveforms, labels, strict=True):
        with torch.no_grad():
            probabilities = model(**batch_of([samples])).logits[0].double().softmax(-1)
        expected.append(enumerated_loss(probabilities, text) / len(text))
    assert loss.item() == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_a_batch_is_its_utterances(model, make_audio):
    waveforms = [make_audio(seconds, 5) for seconds in (0.3, 1.0, 0.62)]
    with torch.no_grad():
        together = model(**batch_of(waveforms)).logits
        for row, samples in zip(together, waveforms, strict=True):
            alone = model(**batch_of([samples])).logits[0]
            assert len(alone) == model.num_frames(torch.tensor(len(samples)))
            torch.testing.assert_close(row[: len(alone)], alone, atol=1e-4, rtol=1e-4)
            assert (row[len(alone) :].argmax(-1) == 0).all()  # blank, whatever the padding says
            assert torch.isinf(row[len(alone) :, 1:]).all()


def test_norm_over_time_goes_without_a_mask(group_norm_hubert, make_audio):
    """As HuBERT-base was trained: padding is seen, and the loss still knows the lengths."""
    model = load(group_norm_hubert)
    batch = batch_of([make_audio(0.13, 1), make_audio(0.09, 2)])
    labels = torch.tensor([[3, 4], [2, 4]])
    with torch.no_grad():
        found = model(**batch, labels=labels)
        seen = model.hubert(batch.input_values).last_hidden_state
    logits = model.lm_head(model.head(seen))
    probabilities = logits.double().softmax(-1)
    frames = [6, 4]
    expected = [
        enumerated_loss(probabilities[i, : frames[i]], text) / 2
        for i, text in enumerate(([3, 4], [2, 4]))
    ]
    assert found.loss.item() == pytest.approx(sum(expected) / 2, rel=1e-4)


def test_frozen_convolutions(stable_hubert):
    model = load(stable_hubert)
    model.freeze_feature_encoder()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if ".feature_extractor." in n}


def test_the_directory_needs_no_package_of_ours(model, tmp_path):
    model.save_pretrained(tmp_path / "hf")
    samples = np.sin(np.arange(8000) / 9).astype(np.float32)
    np.save(tmp_path / "samples.npy", samples)
    script = f"""
import sys, numpy, torch
from transformers import AutoModelForCTC
model = AutoModelForCTC.from_pretrained({str(tmp_path / "hf")!r}, trust_remote_code=True).eval()
with torch.no_grad():
    logits = model(torch.from_numpy(numpy.load({str(tmp_path / "samples.npy")!r}))[None]).logits
numpy.save({str(tmp_path / "logits.npy")!r}, logits.numpy())
assert not [name for name in sys.modules if name.startswith("espnet_spire")]
"""
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        ours = model(torch.from_numpy(samples)[None]).logits
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), ours.numpy(), atol=1e-5)
