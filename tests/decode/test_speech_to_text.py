"""Speech to text from Python and from the command line, with a model in the published layout."""

import subprocess
import sys

import joblib
import numpy as np
import pytest
import soundfile
import torch
from helpers_bases import make_kind, read_json, write_json
from sklearn.cluster import KMeans

from espnet_spire import SpeechToText
from espnet_spire.bin import import_codebook, spire_inference
from espnet_spire.text.vocabulary import extend_vocabulary
from espnet_spire.units.encoder import load_encoder
from espnet_spire.units.notation import merge_repeats
from espnet_spire.utils.datadir import read_rejected, read_table
from espnet_spire.utils.errors import SpireError

UNITS, NEW = 20, 10


@pytest.fixture(scope="module")
def published(tmp_path_factory, stable_hubert, make_audio):
    """As on the hub: a tokenizer and padded matrices, no spire.json; a k-means of scikit-learn."""
    folder = tmp_path_factory.mktemp("published")
    make_kind("llama", folder / "base", surplus=3)
    extend_vocabulary(str(folder / "base"), UNITS, folder / "model", seed=1)
    (folder / "model" / "spire.json").unlink()
    settings = folder / "model" / "tokenizer_config.json"
    write_json(settings, {**read_json(settings), "eos_token": "<|im_end|>"})
    features = load_encoder(stable_hubert, 2)([make_audio(3.0, 9)])[0].numpy()
    kmeans = KMeans(UNITS, n_init=1, max_iter=5, random_state=0).fit(features)
    joblib.dump(kmeans, folder / "km.joblib")
    import_codebook.main(
        [
            *("--joblib", str(folder / "km.joblib"), "--trust_pickle"),
            *("--encoder", stable_hubert, "--layer", "2", "--out", str(folder / "codebook")),
        ]
    )
    rows = read_json(folder / "model" / "config.json")["vocab_size"]
    assert rows % 64 == 0  # the matrices have rows of no token
    return folder, kmeans


@pytest.fixture(scope="module")
def stt(published):
    folder, _ = published
    return SpeechToText.from_pretrained(
        folder / "model", device="cpu", codebook=folder / "codebook", max_new_tokens=NEW
    )


def test_units_and_timings(stt, published, stable_hubert, make_audio):
    _, kmeans = published
    result = stt(make_audio(1.0, 1))
    features = load_encoder(stable_hubert, 2)([make_audio(1.0, 1)])[0].numpy()
    frames = kmeans.predict(features.astype(kmeans.cluster_centers_.dtype))
    assert result.units == merge_repeats(frames).tolist()
    # 49 frames of 20 ms.
    assert len(frames) == 49
    assert result.timings[0][0] == 0.0 and result.timings[-1][1] == pytest.approx(0.98)
    for unit, (start, end) in zip(result.units, result.timings, strict=True):
        assert set(frames[round(start / 0.02) : round(end / 0.02)]) == {unit}
    assert (result.task, result.src_lang, result.tgt_lang) == ("asr", "en", "en")


def test_tokens_and_their_probabilities(stt, make_audio):
    result = stt(make_audio(1.0, 1), task="st", tgt_lang="de")
    generator = stt.generator
    turns = f"<|im_start|>user\nSpeech: {''.join(chr(0xF0000 + u) for u in result.units)}\nGerman:"
    prompt = generator.tokenizer(f"<s>{turns}<|im_end|>\n<|im_start|>assistant\n")
    ids = [i for i in prompt.input_ids if i != generator.tokenizer.bos_token_id]
    ids = [generator.tokenizer.bos_token_id, *ids]
    with torch.no_grad():
        logits = generator.model(torch.tensor([ids + result.token_ids])).logits[0].double()
    logits = logits[:, : len(generator.tokenizer)].log_softmax(-1)
    expected = [logits[len(ids) - 1 + n, token] for n, token in enumerate(result.token_ids)]
    assert result.token_logprobs == pytest.approx([float(x) for x in expected], abs=1e-3)
    assert result.cut == (len(result.token_ids) == NEW) and (result.end_logprob is None) == (
        result.cut
    )
    assert generator.tokenizer.convert_tokens_to_ids(result.tokens) == result.token_ids


def test_a_batch_is_one_at_a_time(stt, make_audio):
    audios = [make_audio(seconds, n) for n, seconds in enumerate((0.3, 1.0, 0.31, 2.0))]
    for task in ("asr", "st", "st_multi_turn", "st_cascade"):
        options = {"task": task, "tgt_lang": None if task == "asr" else "de"}
        together = stt.batch(audios, **options)
        alone = [stt(audio, **options) for audio in audios]
        for a, b in zip(together, alone, strict=True):
            assert (a.text, a.token_ids, a.units, a.transcript) == (
                *(b.text, b.token_ids, b.units, b.transcript),
            )
        if "_" in task:
            heard = stt.batch(audios)
            assert [r.transcript for r in together] == [r.text for r in heard]


def test_the_cascade_translates_what_was_heard(stt, make_audio):
    result = stt(make_audio(1.0, 1), task="st_cascade", tgt_lang="de")
    assert result.text == stt.translate(result.transcript, src_lang="en", tgt_lang="de").text
    several = stt.translate(["a cat", result.transcript], src_lang="en", tgt_lang="de")
    assert several[1].text == result.text and several[1].units == []


def test_files_rates_and_types(stt, make_audio, tmp_path):
    samples = make_audio(1.0, 1)
    whole = (samples * 2**15).round().clip(-(2**15), 2**15 - 1).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", whole, 16000)
    expected = stt(tmp_path / "a.wav")
    assert stt(str(tmp_path / "a.wav")) == expected
    assert stt(whole) == expected
    assert stt(np.stack([whole, whole], axis=1)) == expected
    half = make_audio(1.0, 1, rate=8000)
    soundfile.write(tmp_path / "b.wav", half, 8000, subtype="FLOAT")
    assert stt(half, rate=8000) == stt(tmp_path / "b.wav")


def test_what_cannot_be_used(stt, make_audio, tmp_path):
    for audio, message in (
        (tmp_path / "no.wav", "no.wav: no such file"),
        (np.zeros(10, np.float32), "audio 0: 10 samples are shorter than one frame"),
        (np.zeros((2, 2, 2)), r"audio 0: shape \(2, 2, 2\)"),
        (np.zeros(16000, np.int32), "audio 0: samples are int32"),
        (np.full(16000, np.nan), "audio 0: not all samples are finite"),
        (make_audio(400, 1), "audio 0: a prompt of .* tokens, and the model has 2048 positions"),
    ):
        with pytest.raises(SpireError, match=message):
            stt(audio)
    samples = make_audio(0.5, 1)
    with pytest.raises(SpireError, match="audio 0: a sampling rate of 7 Hz"):
        stt(samples, rate=7)
    with pytest.raises(SpireError, match="task 'tts' is unknown; known are asr, st"):
        stt(samples, task="tts")
    with pytest.raises(SpireError, match="task st needs tgt_lang"):
        stt(samples, task="st")
    with pytest.raises(SpireError, match="job asr.en-de: asr and ner need one language"):
        stt(samples, tgt_lang="de")


def test_codebooks_that_do_not_fit(published, stable_hubert, make_audio):
    folder, _ = published
    model = folder / "model"
    with pytest.raises(SpireError, match="it has no directory codebook; give --codebook"):
        SpeechToText.from_pretrained(model, device="cpu")(make_audio(0.5, 1))
    small = folder / "small.npy"
    np.save(small, np.zeros((7, 32), np.float32))
    import_codebook.main(["--joblib", str(small), "--out", str(folder / "small")])
    stt = SpeechToText.from_pretrained(model, device="cpu", codebook=folder / "small")
    with pytest.raises(SpireError, match="7 clusters, the tokenizer of --model .* has 20 units"):
        stt(make_audio(0.5, 1))


def test_a_model_that_has_its_codebook(published, make_audio, tmp_path):
    folder, _ = published
    extend_vocabulary(
        str(folder / "base"), UNITS, tmp_path / "own", seed=1, codebook=folder / "codebook"
    )
    own = SpeechToText.from_pretrained(tmp_path / "own", device="cpu", max_new_tokens=3)
    assert len(own(make_audio(0.5, 1)).units) > 3
    other = np.load(folder / "small.npy") if (folder / "small.npy").exists() else None
    del other
    np.save(tmp_path / "other.npy", np.ones((UNITS, 32), np.float32))
    import_codebook.main(["--joblib", str(tmp_path / "other.npy"), "--out", str(tmp_path / "o")])
    wrong = SpeechToText.from_pretrained(tmp_path / "own", device="cpu", codebook=tmp_path / "o")
    with pytest.raises(SpireError, match="is not the one that --model .* was made with"):
        wrong(make_audio(0.5, 1))


def test_the_command_from_audio(published, stt, make_audio, tmp_path, capsys, make_data_dir):
    folder, _ = published
    audios = {name: make_audio(0.5 + n / 3, n) for n, name in enumerate("cab")}
    audios["d"] = np.zeros(20, np.float32)
    data = make_data_dir(tmp_path / "data", audios)
    options = [
        *("--model", str(folder / "model"), "--codebook", str(folder / "codebook")),
        *("--device", "cpu", "--max_new_tokens", str(NEW)),
        *("--jobs", "asr.en-en", "st_multi_turn.en-de"),
    ]
    out = tmp_path / "from_dir"
    spire_inference.main([*options, "--data_dir", str(data), "--out", str(out)])
    texts = read_table(out / "asr.en-en" / "text", allow_empty_value=True)
    files = {key: data / "audio" / f"{key}.wav" for key in "abc"}
    assert texts == {**{key: stt(path).text for key, path in files.items()}, "d": ""}
    assert read_rejected(out / "asr.en-en" / "rejected.tsv") == {
        "d": "20 samples are shorter than one frame"
    }
    turns = out / "st_multi_turn.en-de"
    for key, path in files.items():
        result = stt(path, task="st_multi_turn", tgt_lang="de")
        assert read_table(turns / "text", allow_empty_value=True)[key] == result.text
        assert read_table(turns / "transcript", allow_empty_value=True)[key] == result.transcript
    capsys.readouterr()
    wavs = ["--wav", *map(str, files.values()), "--out", str(tmp_path / "from_wav")]
    spire_inference.main([*options, *wavs])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line[0] == "asr.en-en"] == [
        ["asr.en-en", key, texts[key]] for key in "abc"
    ]
    assert len([line for line in lines if line[0].startswith("st_multi_turn")]) == 6
    with pytest.raises(SpireError, match="--num_shards needs --units"):
        spire_inference.main(
            [*options, "--data_dir", str(data), "--out", str(tmp_path / "o"), "--num_shards", "2"]
        )


def test_importing_the_package_is_light():
    code = "import sys, espnet_spire; print('torch' in sys.modules, espnet_spire.SpeechToText)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False <class 'espnet_spire.decode.speech_to_text")
