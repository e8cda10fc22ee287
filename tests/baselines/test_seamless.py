"""SeamlessM4T: prompts by hand, batches, languages, errors."""

import pytest
import torch
from transformers import (
    SeamlessM4TProcessor,
    SeamlessM4Tv2ForSpeechToText,
    SeamlessM4Tv2ForTextToText,
)

from espnet_spire.baselines.seamless import CODES, Seamless, seamless_code
from espnet_spire.text.jobs import parse_job
from espnet_spire.text.languages import LANGUAGES
from espnet_spire.utils.errors import SpireError

TEXTS = ["the cat", "the mat sat on the cat sat on the mat", "der Hund", "le chat est là"]
# By its own generation_config.json, of which the ten languages are these.
PUBLISHED = ["eng", "deu", "fra", "nld", "ita", "spa", "por", "kor", "rus", "cmn"]


@pytest.fixture(scope="module")
def system(seamless_dir):
    return Seamless(seamless_dir, max_new_tokens=9)


@pytest.fixture(scope="module")
def waveforms(make_audio):
    # 0.505 s: an odd number of windows of 25 ms; 1.0 s: the adapter looks beyond the end
    return [make_audio(seconds, i) for i, seconds in enumerate((0.3, 0.505, 1.0, 1.7, 0.04))]


def by_hand(model, inputs, processor, lang, limit):
    """Greedy decoding from the forward pass alone: the end token, the language, what follows."""
    tokenizer = processor.tokenizer
    end = tokenizer.convert_tokens_to_ids("</s>")
    ids, new = [end, tokenizer.convert_tokens_to_ids(f"__{lang}__")], []
    while len(new) < limit and end not in new:
        with torch.no_grad():
            logits = model(**inputs, decoder_input_ids=torch.tensor([ids + new])).logits
        new.append(int(logits[0, -1].argmax()))
    text = tokenizer.decode(new, skip_special_tokens=True)
    return " ".join(text.split()), (None if end in new else len(new))


@pytest.mark.parametrize(("name", "lang"), [("asr.en-en", "eng"), ("st.en-zh", "cmn")])
def test_speech_by_hand(system, seamless_dir, waveforms, name, lang):
    processor = SeamlessM4TProcessor.from_pretrained(seamless_dir)
    model = SeamlessM4Tv2ForSpeechToText.from_pretrained(seamless_dir).eval()
    expected = []
    for samples in waveforms:
        inputs = processor.feature_extractor(samples, sampling_rate=16000, return_tensors="pt")
        expected.append(by_hand(model, inputs, processor, lang, 9))
    job = parse_job(name)
    system.check(job)
    assert [tuple(answer) for answer in system.answer(job, waveforms)] == expected
    assert len(set(expected)) > 1  # the model hears something


@pytest.mark.parametrize("name", ["mt.de-fr", "st_cascade.en-fr"])
def test_text_by_hand(system, seamless_dir, name):
    """The source: its language, its pieces, the end token."""
    processor = SeamlessM4TProcessor.from_pretrained(seamless_dir)
    model = SeamlessM4Tv2ForTextToText.from_pretrained(seamless_dir).eval()
    tokenizer = processor.tokenizer
    job = parse_job(name)
    expected = []
    for text in TEXTS:
        pieces = tokenizer(text, add_special_tokens=False).input_ids
        src = tokenizer.convert_tokens_to_ids({"de": "__deu__", "en": "__eng__"}[job.src])
        inputs = {"input_ids": torch.tensor([[src, *pieces, 3]])}
        expected.append(by_hand(model, inputs, processor, "fra", 9))
    assert [tuple(answer) for answer in system.answer(job, TEXTS)] == expected


def test_a_batch_of_speech_is_its_utterances(system, seamless_dir, waveforms):
    """What the encoder gives for each; texts of a random model would hide a difference."""
    system.answer(parse_job("asr.en-en"), waveforms[:1])
    encode = system._model.speech_encoder

    def encoded(batch):
        with torch.no_grad():
            return encode(**system._features(batch)).last_hidden_state

    together = encoded(waveforms)
    plain = SeamlessM4Tv2ForSpeechToText.from_pretrained(seamless_dir).eval().speech_encoder
    for row, samples in zip(together, waveforms, strict=True):
        alone = encoded([samples])[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=2e-5, rtol=1e-4)
        inputs = system._processor.feature_extractor(
            samples, sampling_rate=16000, return_tensors="pt"
        )
        with torch.no_grad():
            by_transformers = plain(**inputs).last_hidden_state[0]
        torch.testing.assert_close(alone, by_transformers, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["asr.en-en", "st.en-de", "mt.en-de"])
def test_answers_of_a_batch(system, waveforms, name):
    job = parse_job(name)
    batch = TEXTS if name.startswith("mt") else waveforms
    together = system.answer(job, batch)
    assert together == [system.answer(job, [one])[0] for one in batch]


def test_languages():
    assert [CODES[lang] for lang in LANGUAGES if lang in CODES] == [
        seamless_code(lang) for lang in LANGUAGES
    ]
    assert sorted(map(seamless_code, LANGUAGES)) == sorted(PUBLISHED)
    # ISO 639-3 where that is one language, its member where it is a group
    assert [seamless_code(lang) for lang in ("ar", "ja", "bem", "gle")] == [
        *("arb", "jpn"),
        *("bem", "gle"),
    ]


def test_refused(system, tmp_path):
    with pytest.raises(SpireError, match=r"ner.en-en: SeamlessM4T is for asr, st, mt, st_cascade"):
        system.check(parse_job("ner.en-en"))
    with pytest.raises(SpireError, match=r"st.en-ko: --model .* does not know ko \(no __kor__\)"):
        system.check(parse_job("st.en-ko"))
    with pytest.raises(SpireError, match=f"--model {tmp_path}"):
        Seamless(str(tmp_path))


def test_too_short(system, make_audio):
    assert system.why_unusable(make_audio(0.03, 1)) == "480 samples are shorter than one frame"
    assert system.why_unusable(make_audio(0.04, 1)) is None
    assert len(system.answer(parse_job("asr.en-en"), [make_audio(0.036, 1)])) == 1
