"""Whisper: prompts by hand, batches, long audio, limits, languages."""

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor

from espnet_spire.baselines.whisper import Whisper
from espnet_spire.text.jobs import parse_job
from espnet_spire.utils.errors import SpireError

ASR = parse_job("asr.en-en")


@pytest.fixture(scope="module")
def system(whisper_dir):
    return Whisper(whisper_dir, max_new_tokens=12)


@pytest.fixture(scope="module")
def waveforms(make_audio):
    return [make_audio(seconds, i) for i, seconds in enumerate((0.3, 1.0, 0.7, 2.6, 1.7, 0.05))]


def by_hand(directory, samples, prompt, limit):
    """Greedy decoding of at most one window, token after token, from the forward pass alone."""
    processor = WhisperProcessor.from_pretrained(directory)
    model = WhisperForConditionalGeneration.from_pretrained(directory).eval()
    features = processor.feature_extractor(samples, sampling_rate=16000, return_tensors="pt")
    ids = processor.tokenizer.convert_tokens_to_ids(prompt)
    end = processor.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    new = []
    while len(new) < limit and end not in new:
        with torch.no_grad():
            logits = model(**features, decoder_input_ids=torch.tensor([ids + new])).logits[0, -1]
        logits[model.generation_config.suppress_tokens] = -torch.inf
        if not new:
            logits[model.generation_config.begin_suppress_tokens] = -torch.inf
        new.append(int(logits.argmax()))
    text = processor.tokenizer.decode(new, skip_special_tokens=True)
    return " ".join(text.split()), (None if end in new else len(new))


@pytest.mark.parametrize("lang", ["en", "de", "zh"])
def test_short_audio_by_hand(system, whisper_dir, waveforms, lang):
    job = parse_job(f"asr.{lang}-{lang}")
    prompt = ["<|startoftranscript|>", f"<|{lang}|>", "<|transcribe|>", "<|notimestamps|>"]
    short = [samples for samples in waveforms if len(samples) <= 16000]
    expected = [by_hand(whisper_dir, samples, prompt, 12) for samples in short]
    assert [tuple(answer) for answer in system.answer(job, short)] == expected
    assert len(set(expected)) > 1  # the model hears something


def test_a_batch_is_its_utterances(system, waveforms):
    together = system.answer(ASR, waveforms)
    assert together == [system.answer(ASR, [samples])[0] for samples in waveforms]
    order = [3, 0, 5, 2, 4, 1]
    assert system.answer(ASR, [waveforms[i] for i in order]) == [together[i] for i in order]


def test_long_audio_is_what_transformers_says(system, whisper_dir, waveforms):
    processor = WhisperProcessor.from_pretrained(whisper_dir)
    model = WhisperForConditionalGeneration.from_pretrained(whisper_dir).eval()
    samples = waveforms[3]
    features = processor.feature_extractor(
        samples,
        **{"sampling_rate": 16000, "return_tensors": "pt", "return_attention_mask": True},
        **{"truncation": False, "padding": "longest"},
    )
    assert features.input_features.shape[-1] == 260  # more than the window's 100 frames
    ids = model.generate(
        **features, language="de", task="transcribe", return_timestamps=True, max_new_tokens=12
    )
    expected = processor.batch_decode(ids, skip_special_tokens=True)[0]
    answer = system.answer(parse_job("asr.de-de"), [samples])[0]
    assert answer.text == " ".join(expected.split())
    # More was written than one window could say.
    assert ids.shape[1] > 12


def test_what_an_end_and_a_limit_look_like(whisper_dir, waveforms, tmp_path):
    """With the end likely from the third token on, answers are whole; else they are cut."""
    model = WhisperForConditionalGeneration.from_pretrained(whisper_dir)
    end = model.generation_config.eos_token_id
    cut = Whisper(whisper_dir, max_new_tokens=7).answer(ASR, waveforms[:1])[0]
    assert cut.cut in (None, 7)
    model.generation_config.forced_eos_token_id = end  # transformers ends at the limit with it
    model.save_pretrained(tmp_path / "ends")
    WhisperProcessor.from_pretrained(whisper_dir).save_pretrained(tmp_path / "ends")
    system = Whisper(str(tmp_path / "ends"), max_new_tokens=7)
    assert system.answer(ASR, waveforms[:3]) == [
        answer._replace(cut=None) for answer in system.answer(ASR, waveforms[:3])
    ]


def test_room_for_an_answer(whisper_dir):
    """40 positions, of which the prompt takes 4, as Whisper's 448."""
    assert Whisper(whisper_dir, max_new_tokens=256)._max_new_tokens == 36


def test_models_that_know_english_alone(whisper_dir, waveforms, tmp_path):
    """Their prompt has neither language nor task."""
    model = WhisperForConditionalGeneration.from_pretrained(whisper_dir)
    known = model.generation_config.to_dict()
    for name in ("lang_to_id", "task_to_id"):
        del known[name]
    known["forced_decoder_ids"] = [[1, known["no_timestamps_token_id"]]]
    model.generation_config = GenerationConfig(**{**known, "is_multilingual": False})
    model.save_pretrained(tmp_path / "en")
    WhisperProcessor.from_pretrained(whisper_dir).save_pretrained(tmp_path / "en")
    system = Whisper(str(tmp_path / "en"), max_new_tokens=12)
    prompt = ["<|startoftranscript|>", "<|notimestamps|>"]
    expected = by_hand(tmp_path / "en", waveforms[0], prompt, 12)
    assert tuple(system.answer(ASR, waveforms[:1])[0]) == expected
    with pytest.raises(SpireError, match="knows English alone"):
        system.check(parse_job("asr.de-de"))


def test_refused(system, tmp_path):
    with pytest.raises(SpireError, match=r"job st.en-de: Whisper is for asr; leave it out"):
        system.check(parse_job("st.en-de"))
    with pytest.raises(SpireError, match=r"asr.ko-ko: --model .* does not know ko"):
        system.check(parse_job("asr.ko-ko"))
    with pytest.raises(SpireError, match=f"--model {tmp_path}"):
        Whisper(str(tmp_path))


def test_what_audio_costs(system):
    assert [system.padded_samples(n) for n in (1, 16000, 16001)] == [16000, 16000, 32000]


def test_bfloat16(whisper_dir, waveforms):
    system = Whisper(whisper_dir, dtype="bfloat16", max_new_tokens=3)
    assert all(np.isfinite(answer.cut or 0) for answer in system.answer(ASR, waveforms))
