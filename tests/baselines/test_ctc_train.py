"""Training of the CTC baseline: what it learns, kills, what it refuses, what it leaves."""

import os
import signal
import subprocess
import sys
import time

import jiwer
import numpy as np
import pytest
import soundfile
import torch
import yaml
from transformers import Wav2Vec2Processor

from espnet_spire.baselines.characters import greedy_texts
from espnet_spire.baselines.ctc import Ctc
from espnet_spire.baselines.ctc_config import CtcConfig
from espnet_spire.baselines.ctc_train import train_ctc
from espnet_spire.baselines.deep_ctc import HubertDeepCtc
from espnet_spire.text.jobs import parse_job
from espnet_spire.utils.atomic import read_json
from espnet_spire.utils.datadir import read_rejected
from espnet_spire.utils.errors import SpireError

ASR = parse_job("asr.en-en")
SETTINGS = {
    "num_epochs": 3.0,
    "batch_utterances": 4,
    "micro_batch_utterances": 2,
    "learning_rate": 1e-3,
    "min_char_count": 1,
    "eval_interval_steps": 3,
    "num_workers": 0,
}
TONES = {"a": 300, "b": 900, "c": 2100}


def tones(text):
    """A tone of 120 ms for each letter, silence between them and for the space."""
    time_axis = np.arange(1920) / 16000
    gap = np.zeros(640, np.float32)
    parts = [gap]
    for letter in text:
        wave = np.sin(2 * np.pi * TONES[letter] * time_axis) if letter != " " else 0 * time_axis
        parts += [wave.astype(np.float32) * 0.4, gap]
    return np.concatenate(parts)


def texts(count, seed):
    rng = np.random.default_rng(seed)
    return {
        f"u{i:03d}": " ".join(
            "".join(rng.choice(list("abc"), rng.integers(1, 4))) for _ in range(2)
        )
        for i in range(count)
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory, make_data_dir):
    root = tmp_path_factory.mktemp("ctc")
    made = {}
    for name, count in (("train", 18), ("valid", 6)):
        said = texts(count, len(name))
        made[name] = make_data_dir(
            root / name, {key: tones(text) for key, text in said.items()}, texts=said
        )
    return made


def weights(directory):
    return HubertDeepCtc.from_pretrained(directory).state_dict()


def test_it_learns_and_the_best_by_cer_is_kept(sets, stable_hubert, tmp_path):
    config = CtcConfig(
        **{**SETTINGS, "num_epochs": 36.0, "learning_rate": 3e-3, "dropout": 0.0},
        **{"mask_time_prob": 0.0, "encoder_dropout": 0.0},
    )
    final = train_ctc(stable_hubert, sets["train"], sets["train"], tmp_path / "out", config)
    history = [entry for entry in read_json(tmp_path / "out/history.json") if "eval_cer" in entry]
    best = min(entry["eval_cer"] for entry in history)
    assert best < 30 < history[0]["eval_cer"]
    # Decoded apart from the Trainer, the model has that very error rate.
    system = Ctc(str(final))
    keys = sorted(texts(18, 5))
    waveforms = [
        soundfile.read(sets["train"] / f"audio/{key}.wav", dtype="float32")[0] for key in keys
    ]
    said = [answer.text for answer in system.answer(ASR, waveforms)]
    assert said == [system.answer(ASR, [samples])[0].text for samples in waveforms]
    assert 100 * jiwer.cer([texts(18, 5)[key] for key in keys], said) == pytest.approx(best)


def test_equal_characters_are_labels_of_their_own(sets, stable_hubert, tmp_path):
    config = CtcConfig(**{**SETTINGS, "num_epochs": 0.2})
    final = train_ctc(stable_hubert, sets["train"], sets["valid"], tmp_path / "out", config)
    processor = Wav2Vec2Processor.from_pretrained(final)
    assert read_json(final / "vocab.json") == {
        **{"<pad>": 0, "<unk>": 1, "|": 2},
        **{"a": 3, "b": 4, "c": 5},
    }
    assert processor.tokenizer("aab ccx").input_ids == [3, 3, 4, 2, 5, 5, 1]
    frames = [[0, 3, 3, 0, 3, 4, 2, 2, 5, 0, 5, 0], [3, 1, 3, 2, 0, 2, 0, 0, 0, 0, 0, 0]]
    assert greedy_texts(processor.tokenizer, frames) == ["aab cc", "a a"]
    assert processor.feature_extractor.do_normalize


def test_a_killed_training_ends_as_an_undisturbed_one(sets, stable_hubert, tmp_path):
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(SETTINGS))
    base = [sys.executable, "-m", "espnet_spire.bin.train_ctc", "--config", tmp_path / "c.yaml"]
    base += ["--encoder", stable_hubert, "--train_data_dir", sets["train"]]
    base += ["--valid_data_dir", sets["valid"], "--device", "cpu", "--output_dir"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(out):
        return subprocess.Popen(
            [*map(str, base), str(out)], stderr=subprocess.PIPE, text=True, env=environment
        )

    def wait_for(path, process):
        while not path.exists():
            assert process.poll() is None, process.stderr.read()[-2000:]
            time.sleep(0.02)

    undisturbed, killed, stopped = (tmp_path / name for name in ("one", "two", "three"))
    # Five updates an epoch: checkpoints after 3, 6 …, in the midst of epochs.
    process = start(killed)
    wait_for(killed / "checkpoints/checkpoint-6", process)  # not whole, perhaps
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start(stopped)
    wait_for(stopped / "checkpoints/checkpoint-3/trainer_state.json", process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert process.returncode == 75 and "stopped at update" in said, said[-2000:]
    for out in (undisturbed, killed, stopped):
        process = start(out)
        said = process.communicate()[1]
        assert process.returncode == 0, said[-2000:]
    expected = weights(undisturbed / "hf")
    for out in (killed, stopped):
        for name, value in weights(out / "hf").items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=f"{out} {name}")


def test_again_and_with_other_settings(sets, stable_hubert, tmp_path):
    """Finished, there is nothing to do; a training with other settings is not overwritten."""
    config = CtcConfig(**{**SETTINGS, "num_epochs": 0.2})
    run = (stable_hubert, sets["train"], sets["valid"], tmp_path / "out")
    final = train_ctc(*run, config)
    before = (final / "model.safetensors").stat().st_mtime_ns
    assert train_ctc(*run, config) == final
    assert (final / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(SpireError, match="has a training with another dropout in it"):
        train_ctc(*run, CtcConfig(**{**SETTINGS, "num_epochs": 0.2, "dropout": 0.1}))


def test_convolutions_stay_unless_asked(sets, stable_hubert, tmp_path):
    for frozen in (True, False):
        config = CtcConfig(**SETTINGS, freeze_feature_encoder=frozen)
        final = train_ctc(
            stable_hubert, sets["train"], sets["valid"], tmp_path / str(frozen), config
        )
        name = "hubert.feature_extractor.conv_layers.0.conv.weight"
        start = HubertDeepCtc.from_pretrained(
            stable_hubert, config=HubertDeepCtc.from_pretrained(final).config
        ).state_dict()[name]
        assert torch.equal(weights(final)[name], start) == frozen


def test_bfloat16(sets, stable_hubert, tmp_path):
    config = CtcConfig(**{**SETTINGS, "num_epochs": 1.0, "dtype": "bfloat16"})
    final = train_ctc(stable_hubert, sets["train"], sets["valid"], tmp_path / "out", config)
    history = read_json(tmp_path / "out/history.json")
    assert all(np.isfinite(entry["loss"]) for entry in history if "loss" in entry)
    values = weights(final).values()
    assert all(v.dtype == torch.float32 and v.isfinite().all() for v in values)
    samples = [tones("abc"), tones("ca b")]
    exact, fast = (Ctc(str(final), dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert len(fast.answer(ASR, samples)) == len(exact.answer(ASR, samples)) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_audio_is_one_line(sets, stable_hubert, tmp_path, make_data_dir, workers):
    said = texts(4, 1)
    data = make_data_dir(tmp_path / "d", {k: tones(v) for k, v in said.items()}, texts=said)
    samples, _ = soundfile.read(data / "audio/u001.wav", dtype="float32")
    samples[9] = np.nan
    soundfile.write(data / "audio/u001.wav", samples, 16000, subtype="FLOAT")
    config = CtcConfig(**{**SETTINGS, "num_workers": workers})
    with pytest.raises(SpireError) as caught:
        train_ctc(stable_hubert, data, sets["valid"], tmp_path / "out", config)
    message = str(caught.value)
    assert message.startswith(f"{data}/audio/u001.wav: samples that are not finite")
    assert "\n" not in message and "Traceback" not in message


def test_refused(sets, stable_hubert, tmp_path, lm_dir, make_data_dir, caplog):
    config = CtcConfig(**{**SETTINGS, "num_epochs": 0.2})
    run = (sets["train"], sets["valid"], tmp_path / "out", config)
    with pytest.raises(SpireError, match=f"--encoder {lm_dir}: "):
        train_ctc(str(lm_dir), *run)
    with pytest.raises(SpireError, match=f"--encoder {tmp_path}/no: "):
        train_ctc(f"{tmp_path}/no", *run)
    with pytest.raises(SpireError, match="head_activation: none is none of"):
        train_ctc(stable_hubert, *run[:2], tmp_path / "o2", CtcConfig(head_activation="none"))
    said = {"u1": "ab", "u2": "…"}
    data = make_data_dir(tmp_path / "d", {k: tones("ab") for k in said}, texts=said)
    out = tmp_path / "o3"
    train_ctc(stable_hubert, data, sets["valid"], out, config)
    assert read_rejected(out / "rejected.tsv") == {
        "u2": "it has no transcript, or one without words"
    }
    assert "1 of 2 utterances are left out" in caplog.text
    nothing = make_data_dir(tmp_path / "n", {"u2": tones("ab")}, texts={"u2": "…"})
    with pytest.raises(SpireError, match="none of 1 utterances is of use; u2: it has no"):
        train_ctc(stable_hubert, nothing, sets["valid"], tmp_path / "o4", config)
