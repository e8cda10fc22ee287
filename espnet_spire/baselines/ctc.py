"""HuBERT+CTC as :mod:`espnet_spire.baselines.ctc_train` leaves it; greedy."""

from typing import List, Optional, Sequence

import numpy as np
import torch
from transformers import Wav2Vec2Processor

from espnet_spire.baselines.characters import greedy_texts
from espnet_spire.baselines.deep_ctc import HubertDeepCtc
from espnet_spire.baselines.systems import Input, Said, System, load_or_explain
from espnet_spire.text.jobs import Job
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.unusable import too_short
from espnet_spire.utils.errors import SpireError


class Ctc(System):
    """The likeliest character of each frame; repeats are merged, blanks removed.

    Args:
        name: directory.
        speech_lang: the language that it was trained on.
    """

    title = "HuBERT+CTC"
    tasks = ("asr",)

    def __init__(
        self, name: str, *, device: str = "cpu", dtype: str = "float32", speech_lang: str = "en"
    ) -> None:
        self._processor = load_or_explain(Wav2Vec2Processor.from_pretrained, name)
        self._model = load_or_explain(HubertDeepCtc.from_pretrained, name).eval().to(device)
        if not hasattr(self._model.config, "head_layers"):
            raise SpireError(
                f"--model {name}: not of train_ctc (no head_layers in its config.json)"
            )
        self._dtype, self._device, self._lang = getattr(torch, dtype), device, speech_lang
        # Where the convolutions' norm goes over time, padding would change it.
        self._pads = self._model.config.feat_extract_norm == "layer"

    def check(self, job: Job) -> None:
        super().check(job)
        if job.src != self._lang:
            raise SpireError(f"job {job.name}: the speech is in {self._lang}")

    def why_unusable(self, samples: np.ndarray) -> Optional[str]:
        frames = int(self._model.num_frames(torch.tensor(len(samples))))
        return None if frames >= 1 else too_short(len(samples))

    @torch.inference_mode()
    def answer(self, job: Job, batch: Sequence[Input]) -> List[Said]:
        groups = [batch] if self._pads else [[samples] for samples in batch]
        return [said for group in groups for said in self._answer(group)]

    def _answer(self, batch: Sequence[Input]) -> List[Said]:
        inputs = self._processor.feature_extractor(
            list(batch),
            sampling_rate=SAMPLE_RATE,
            padding=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self._device)
        with torch.autocast(
            torch.device(self._device).type, self._dtype, enabled=self._dtype != torch.float32
        ):
            ids = self._model(inputs.input_values, inputs.attention_mask).logits.argmax(-1)
        return [Said(text) for text in greedy_texts(self._processor.tokenizer, ids)]
