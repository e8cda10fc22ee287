"""SeamlessM4T by transformers: recognition, and translation of speech and of text, greedy.

No speech is generated: only the parts that hear, read and write are loaded, one pair at a time.
"""

import gc
from typing import Dict, List, Optional, Sequence

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSeq2SeqLM, AutoModelForSpeechSeq2Seq, SeamlessM4TProcessor

from espnet_spire.baselines.systems import (
    OF_TEXT,
    Input,
    Said,
    System,
    load_or_explain,
    one_line,
)
from espnet_spire.text.jobs import Job
from espnet_spire.text.languages import LANGUAGES, three_letter_code
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.unusable import too_short
from espnet_spire.utils.cli import MAX_NEW_TOKENS
from espnet_spire.utils.errors import SpireError

# Its names of the ten languages, and of those whose ISO 639-3 code is that of a group of languages.
CODES: Dict[str, str] = {
    **{"en": "eng", "de": "deu", "fr": "fra", "nl": "nld", "it": "ita", "es": "spa"},
    **{"pt": "por", "ko": "kor", "ru": "rus", "zh": "cmn"},
    **{"ar": "arb", "az": "azj", "fa": "pes", "lv": "lvs", "mn": "khk", "ms": "zsm", "ne": "npi"},
    **{"no": "nob", "or": "ory", "ps": "pbt", "sw": "swh", "uz": "uzn"},
}
assert CODES.keys() >= LANGUAGES.keys()


def seamless_code(lang: str) -> str:
    """SeamlessM4T's name of a language, e.g. ``de`` → ``deu``, ``zh`` → ``cmn``."""
    return CODES[lang] if lang in CODES else three_letter_code(lang)


class Seamless(System):
    """``facebook/seamless-m4t-v2-large`` and models of its kind, of the first version, too.

    Args:
        name: directory or hub name.
        max_new_tokens: limit of an answer.
    """

    title = "SeamlessM4T"
    tasks = ("asr", "st", "mt", "st_cascade")

    def __init__(
        self,
        name: str,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        max_new_tokens: int = MAX_NEW_TOKENS,
    ) -> None:
        self._processor = load_or_explain(SeamlessM4TProcessor.from_pretrained, name)
        self._name, self._device, self._dtype = name, device, getattr(torch, dtype)
        self._max_new_tokens = max_new_tokens
        self._model = None
        self._reads_text: Optional[bool] = None
        # Of a batch of audio, which frames an utterance has alone: shape (batch, frames).
        self._has_frame: Optional[torch.Tensor] = None

    def check(self, job: Job) -> None:
        super().check(job)
        tokenizer = self._processor.tokenizer
        for lang in (job.src, job.tgt):
            token = f"__{seamless_code(lang)}__"
            if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id):
                raise SpireError(
                    f"job {job.name}: --model {self._name} does not know {lang} (no {token})"
                )

    def why_unusable(self, samples: np.ndarray) -> Optional[str]:
        # Two windows of 25 ms, 10 ms apart, make one frame of the encoder.
        enough = len(samples) >= 0.035 * SAMPLE_RATE
        return None if enough else too_short(len(samples))

    def _load(self, reads_text: bool):
        if self._reads_text is not reads_text:
            self._model = None
            gc.collect()  # before the other one needs the room
            kind = AutoModelForSeq2SeqLM if reads_text else AutoModelForSpeechSeq2Seq
            model = load_or_explain(
                lambda name: kind.from_pretrained(name, dtype=self._dtype), self._name
            )
            self._model = model.eval().to(self._device)
            self._reads_text = reads_text
            if not reads_text:
                layers = self._model.speech_encoder.adapter.layers
                if len(layers) != 1:
                    raise SpireError(
                        f"--model {self._name}: its adapter has {len(layers)} layers, 1 is known"
                    )
                for convolution in (layers[0].residual_conv, layers[0].self_attn_conv):
                    convolution.register_forward_pre_hook(self._without_padding)
        return self._model

    def _without_padding(self, _module, inputs):
        """What a convolution of the adapter sees behind the end of audio: zeros, as it does alone.

        transformers has it look at what earlier layers made of the padding, so that the last frame
        of an utterance would depend on the batch.
        """
        return (inputs[0] * self._has_frame[:, None].to(inputs[0]),)

    def _features(self, batch: Sequence[np.ndarray]) -> Dict[str, torch.Tensor]:
        """Each as alone, with zeros behind it."""
        extract = self._processor.feature_extractor
        alone = [
            extract(samples, sampling_rate=SAMPLE_RATE, return_tensors="pt") for samples in batch
        ]
        parts = {
            name: pad_sequence([one[name][0] for one in alone], batch_first=True)
            for name in ("input_features", "attention_mask")
        }
        # With an odd number of windows of 25 ms, the last pair is half empty: a frame that the
        # encoder's attention does not look at and the adapter does.
        lengths = torch.tensor([one["input_features"].shape[1] for one in alone])
        places = torch.arange(int(lengths.max()))
        self._has_frame = (places < lengths[:, None]).to(self._device)
        parts["input_features"] = parts["input_features"].to(self._dtype)
        return parts

    @torch.inference_mode()
    def answer(self, job: Job, batch: Sequence[Input]) -> List[Said]:
        model = self._load(job.task in OF_TEXT)
        tokenizer = self._processor.tokenizer
        if job.task in OF_TEXT:
            src_lang = seamless_code(job.src)
            inputs = tokenizer(list(batch), src_lang=src_lang, padding=True, return_tensors="pt")
        else:
            inputs = self._features(batch)
        inputs = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        ids = model.generate(
            **inputs,
            tgt_lang=seamless_code(job.tgt),
            do_sample=False,
            num_beams=1,
            max_new_tokens=self._max_new_tokens,
        ).tolist()
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            Said(one_line(text), self._cut(model, row) or None)
            for text, row in zip(texts, ids, strict=True)
        ]

    def _cut(self, model, ids: Sequence[int]) -> int:
        """Tokens behind the prompt if there are as many as there may be and no end, else 0."""
        new = ids[2:]  # the decoder starts with its start token and the language
        return 0 if model.generation_config.eos_token_id in new else len(new)
