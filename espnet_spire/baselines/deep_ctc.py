"""HuBERT with hidden layers and a vocabulary projection, trained by CTC.

transformers' ``HubertForCTC`` has the projection alone. This file is copied into the directories of
models and imports nothing but torch and transformers, so that they load without this package:
``AutoModelForCTC.from_pretrained(directory, trust_remote_code=True)``.
"""

from typing import Optional

import torch
from torch import Tensor, nn
from transformers import HubertModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel


class HubertDeepCtc(HubertPreTrainedModel):
    """HuBERT's last layer, ``head_layers`` times (linear, activation, dropout), a projection.

    Args:
        config: of HuBERT, with ``head_layers``, ``head_size`` (width), ``head_activation`` and
            ``head_dropout`` beside transformers' own settings; blank is ``pad_token_id``.

    Source: the SPIRE paper, Appendix B, which leaves width and activation open.
    """

    def __init__(self, config):
        super().__init__(config)
        self.hubert = HubertModel(config)
        layers = []
        size = config.hidden_size
        for _ in range(config.head_layers):
            layers += [
                nn.Linear(size, config.head_size),
                ACT2FN[config.head_activation],
                nn.Dropout(config.head_dropout),
            ]
            size = config.head_size
        self.head = nn.Sequential(*layers)
        self.lm_head = nn.Linear(size, config.vocab_size)
        self.post_init()

    def num_frames(self, num_samples: Tensor) -> Tensor:
        """Frames of so many samples."""
        return self._get_feat_extract_output_lengths(num_samples).to(torch.long)

    def freeze_feature_encoder(self) -> None:
        """Leave the convolutions as they are, as is usual in fine-tuning."""
        self.hubert.feature_extractor._freeze_parameters()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Optional[Tensor] = None,
        labels: Optional[Tensor] = None,
    ) -> CausalLMOutput:
        """Logits, and the loss if there are labels.

        Args:
            input_values: shape (batch, samples).
            attention_mask: 1 at samples, 0 at padding; the same shape.
            labels: shape (batch, characters), padded with -100.

        Returns:
            ``logits`` of shape (batch, frames, vocabulary); in evaluation, frames of padding say
            blank. ``loss``: of each utterance the mean over its characters, of these the mean.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_values, dtype=torch.long)
        # Where the norm of the convolutions goes over time, HuBERT was trained without a mask.
        has_mask = self.config.feat_extract_norm == "layer"
        hidden = self.hubert(
            input_values, attention_mask=attention_mask if has_mask else None
        ).last_hidden_state
        logits = self.lm_head(self.head(hidden))
        blank = self.config.pad_token_id
        frames = self.num_frames(attention_mask.sum(-1))
        loss = None
        if labels is not None:
            spoken = labels >= 0
            log_probs = logits.float().log_softmax(-1).transpose(0, 1)
            with torch.backends.cudnn.flags(enabled=False):
                loss = nn.functional.ctc_loss(
                    log_probs,
                    labels.masked_select(spoken),
                    frames,
                    spoken.sum(-1),
                    blank=blank,
                    reduction="mean",
                    zero_infinity=True,
                )
        if not self.training:
            padding = torch.arange(logits.shape[1], device=logits.device) >= frames[:, None]
            logits = logits.masked_fill(padding[..., None], float("-inf"))
            logits[..., blank] = logits[..., blank].masked_fill(padding, 0.0)
        return CausalLMOutput(loss=loss, logits=logits)


# save_pretrained() copies this file and names it in config.json.
HubertDeepCtc.register_for_auto_class("AutoModelForCTC")
