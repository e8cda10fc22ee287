"""A small HuBERT, trained from nothing in a minute or two: the offline stand-in.

``facebook/hubert-large-ll60k`` in everything but size: raw 16 kHz waveform in, layer-normalised
convolutions, stable layer norm, masked prediction of k-means labels of MFCC, which is HuBERT's
first iteration (Hsu et al. 2021). What is saved is an ordinary Hugging Face directory.

One thing is added so that minutes are enough: for its first few hundred updates the
convolutional front end learns to tell the labels of frames that it sees (no mask, no
transformer). From a random front end, masked prediction alone spends those minutes on a plateau.
"""

import dataclasses
import itertools
import logging
import math
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from espnet_spire.mini.channels_last import front_end
from espnet_spire.mini.mfcc_labels import cluster
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.units.framing import HUBERT_FRAMING
from espnet_spire.units.mfcc import mfcc
from espnet_spire.utils.atomic import PathLike, atomic_dir, write_json
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress

HISTORY = "train_history.json"
# What makes the label of frame i belong to frame i; see mfcc_labels.
_FRONT_END = {"conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
_FIXED = {
    **_FRONT_END,
    "conv_bias": True,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "num_feat_extract_layers": 7,
}


@dataclasses.dataclass
class SmallHubertConfig:
    """Settings of labels, model and training; the defaults of ``conf/mini_hubert.yaml``."""

    num_clusters: int = 100
    kmeans_frames: int = 100_000
    normalize_mfcc: bool = True
    mask_prob: float = 0.5
    mask_span: int = 8
    unmasked_weight: float = 0.3
    logit_scale: float = 0.1
    front_end_passes: float = 0.6
    front_end_batch_seconds: float = 10.0
    front_end_learning_rate: float = 3e-3
    passes: float = 2.5
    batch_seconds: float = 15.0
    max_crop_seconds: float = 10.0
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    held_out: int = 48
    model: Dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        positive = ("num_clusters", "kmeans_frames", "mask_span", "passes", "batch_seconds")
        positive += ("max_crop_seconds", "learning_rate", "held_out", "logit_scale")
        for name in positive + ("front_end_batch_seconds", "front_end_learning_rate", "grad_clip"):
            if not getattr(self, name) > 0:
                raise SpireError(f"{name}: {getattr(self, name)} must be above 0")
        for name in ("front_end_passes", "unmasked_weight", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise SpireError(f"{name}: {getattr(self, name)} must not be negative")
        if not 0 < self.mask_prob < 1:
            raise SpireError(f"mask_prob: {self.mask_prob} is not between 0 and 1")
        if not 0 <= self.warmup < 1:
            raise SpireError(f"warmup: {self.warmup} is not in [0, 1)")
        for name in sorted(_FIXED.keys() & self.model.keys()):
            raise SpireError(f"model.{name} cannot be set: the labels and the code depend on it")


def hubert_config(overrides: Mapping[str, Any]):
    """transformers' ``HubertConfig`` of the stand-in.

    Args:
        overrides: sizes and other settings of ``HubertConfig`` by name.

    Raises:
        SpireError: a name that ``HubertConfig`` does not have, or sizes that do not fit together.
    """
    from transformers import HubertConfig

    known = HubertConfig().to_dict()
    for name in overrides:
        if name not in known:
            raise SpireError(f"model.{name}: HubertConfig has no such setting")
    settings: Dict[str, Any] = {
        "hidden_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 384,
        "conv_dim": (32, 32, 48, 48, 64, 64, 64),
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 4,
        # 1 / sqrt(hidden_size), about: the usual 0.02 is made for models ten times as wide.
        "initializer_range": 0.1,
        # A few hundred updates over-fit nothing: dropout would only slow them down, and
        # dropped layers would leave the layer that units come from half trained.
        "layerdrop": 0.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        **overrides,
        **_FIXED,
    }
    try:
        if len(settings["conv_dim"]) != _FIXED["num_feat_extract_layers"]:
            raise ValueError(f"conv_dim {settings['conv_dim']} does not have 7 entries")
        for divisor in ("num_attention_heads", "num_conv_pos_embedding_groups"):
            if settings["hidden_size"] % settings[divisor]:
                raise ValueError(f"hidden_size is not a multiple of {divisor}")
        return HubertConfig(**settings)
    except (ValueError, TypeError) as error:
        raise SpireError(f"model: {' '.join(str(error).split())}") from None


class Utterance(NamedTuple):
    """Normalised waveform (float16, (samples,)) and labels (int64, (frames,))."""

    samples: np.ndarray
    labels: np.ndarray


class Step(NamedTuple):
    """One update of masked prediction: nats a frame, and the share of masked frames (0–1) hit."""

    loss: float
    unmasked_loss: float
    accuracy: float


def standardized(samples: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance, as ``Wav2Vec2FeatureExtractor(do_normalize=True)`` does."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)


def load_utterances(
    data_dirs: Sequence[PathLike], config: SmallHubertConfig, seed: int
) -> List[Utterance]:
    """Audio of Kaldi data directories, with the MFCC labels of each frame.

    Kept as float16: rounding is 66 dB below the signal, and hours of audio fit into memory.

    Raises:
        SpireError: what :func:`espnet_spire.units.audio.iter_audio` raises, nothing long enough,
            or fewer frames than clusters.
    """
    from espnet_spire.units.audio import iter_audio, utterance_sources

    waveforms, features, short = [], [], []
    name = ", ".join(str(data_dir) for data_dir in data_dirs)
    total = sum(len(utterance_sources(data_dir)) for data_dir in data_dirs)
    audio = itertools.chain.from_iterable(iter_audio(data_dir) for data_dir in data_dirs)
    for key, samples in progress(audio, total=total, desc="MFCC", unit="utt"):
        # A shorter one would be masked from end to end.
        if HUBERT_FRAMING.num_frames(len(samples)) < 2 * config.mask_span:
            short.append(key)
            continue
        features.append(mfcc(samples, normalize=config.normalize_mfcc).numpy())
        waveforms.append(standardized(samples).astype(np.float16))
    if short:
        logging.warning(
            "%s: %d of %d utterances are shorter than %d frames and are left out: %s%s",
            *(name, len(short), total, 2 * config.mask_span, ", ".join(short[:5])),
            " …" if len(short) > 5 else "",
        )
    if len(waveforms) < 2:
        raise SpireError(f"{name}: fewer than two utterances are long enough to train on")
    logging.info("k-means with %d clusters over MFCC", config.num_clusters)
    try:
        labels = cluster(
            features,
            num_clusters=config.num_clusters,
            max_frames=config.kmeans_frames,
            seed=seed,
        )
    except SpireError as error:
        raise SpireError(f"{name}: {error}") from None
    return [Utterance(*pair) for pair in zip(waveforms, labels, strict=True)]


def plan_batches(
    frames: Sequence[int], batch_frames: int, max_crop: int, rng: np.random.Generator
) -> List[np.ndarray]:
    """One pass over the utterances in batches of similar length, in random order.

    Args:
        frames: length of each utterance.
        batch_frames: at most so many frames a batch, except for a batch of one.
        max_crop: longer utterances are cut to this length.
        rng: breaks ties in length, and shuffles the batches.

    Returns:
        arrays of indices into ``frames``; each index is in exactly one.
    """
    lengths = np.minimum(np.asarray(frames), max_crop)
    # Jitter: utterances of nearly the same length meet others in every pass.
    order = np.argsort(lengths * rng.uniform(0.95, 1.05, len(lengths)), kind="stable")
    batches, start = [], 0
    while start < len(order):
        stop, shortest = start, lengths[order[start]]
        # Every crop of a batch is as long as its shortest utterance.
        while stop < len(order):
            shortest = min(shortest, lengths[order[stop]])
            if stop > start and (stop - start + 1) * shortest > batch_frames:
                break
            stop += 1
        batches.append(order[start:stop])
        start = stop
    return [batches[position] for position in rng.permutation(len(batches))]


def crop_batch(
    utterances: Sequence[Utterance], max_crop: int, rng: np.random.Generator
) -> Tuple[Tensor, Tensor]:
    """Cut utterances to the length of the shortest, at a random frame: no padding to hide.

    Returns:
        float32 waveforms (batch, 320 · frames + 80) and int64 labels (batch, frames).
    """
    frames = min(min(len(utterance.labels) for utterance in utterances), max_crop)
    window, hop = HUBERT_FRAMING
    size = hop * (frames - 1) + window
    waveforms = np.empty((len(utterances), size), dtype=np.float32)
    labels = np.empty((len(utterances), frames), dtype=np.int64)
    for row, utterance in enumerate(utterances):
        first = int(rng.integers(len(utterance.labels) - frames + 1))
        waveforms[row] = utterance.samples[hop * first : hop * first + size]
        labels[row] = utterance.labels[first : first + frames]
    return torch.from_numpy(waveforms), torch.from_numpy(labels)


def span_mask(
    batch: int, frames: int, mask_prob: float, span: int, rng: np.random.Generator
) -> Tensor:
    """Random spans of masked frames; they may overlap, as HuBERT's do.

    As many spans start in each row as would cover ``mask_prob`` of it if starts fell
    independently: 1 - (1 - n / frames)^span = mask_prob.

    Returns:
        bool, shape (batch, frames); at least one span a row.
    """
    span = min(span, frames)
    starts = frames - span + 1
    share = 1 - (1 - mask_prob) ** (1 / span)
    spans = max(1, min(round(share * frames), starts))
    first = np.argsort(rng.random((batch, starts)), axis=1)[:, :spans]
    mask = np.zeros((batch, frames), dtype=bool)
    rows = np.arange(batch)[:, None, None]
    mask[rows, first[:, :, None] + np.arange(span)] = True
    return torch.from_numpy(mask)


class MaskedPrediction(torch.nn.Module):
    """A HubertModel and the heads that are thrown away after training."""

    def __init__(self, hubert: torch.nn.Module, num_clusters: int, logit_scale: float):
        """Args: a transformers ``HubertModel``, K, and the temperature of the cosines."""
        super().__init__()
        size = hubert.config.hidden_size
        self.hubert = hubert
        self.projection = torch.nn.Linear(size, size)
        self.codes = torch.nn.Parameter(torch.randn(num_clusters, size))
        self.front_end_head = torch.nn.Linear(size, num_clusters)
        with torch.no_grad():
            # transformers draws it from [0, 1): far larger than what it stands in for here.
            hubert.masked_spec_embed.mul_(0.1)
        self.logit_scale = logit_scale

    def visible_loss(self, waveforms: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the labels from the front end alone, nothing masked.

        Args: as for :meth:`forward`.
        """
        hidden = front_end(self.hubert.feature_extractor, waveforms)
        logits = self.front_end_head(self.hubert.feature_projection(hidden))
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    def forward(self, waveforms: Tensor, labels: Tensor, mask: Tensor) -> Tuple[Tensor, ...]:
        """Masked prediction: cross-entropy over cosines to one learned code a cluster.

        Args:
            waveforms: (batch, samples), standardised.
            labels: int64, (batch, frames).
            mask: bool, (batch, frames); true frames are hidden from the transformer.

        Returns:
            mean loss of the masked frames, mean loss of the others (0 where there are none), and
            the share of the masked frames that was predicted right.
        """
        hubert = self.hubert
        hidden = hubert.feature_projection(front_end(hubert.feature_extractor, waveforms))
        hidden = torch.where(mask.unsqueeze(-1), hubert.masked_spec_embed, hidden)
        hidden = hubert.encoder(hidden).last_hidden_state
        predicted = functional.normalize(self.projection(hidden), dim=-1)
        codes = functional.normalize(self.codes, dim=-1)
        logits = predicted @ codes.T / self.logit_scale
        losses = functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
        hit = (logits.detach().argmax(dim=-1) == labels)[mask].float().mean()
        visible = losses[~mask]
        return losses[mask].mean(), visible.sum() / max(1, visible.numel()), hit


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear up over the first ``warmup`` of ``total`` steps, then linear down to 0 (excluded)."""
    rise = max(1, round(warmup * total))
    if step < rise:
        return (step + 1) / rise
    return (total - step) / max(1, total - rise + 1)


def plan_passes(
    frames: Sequence[int],
    passes: float,
    batch_seconds: float,
    max_crop: int,
    rng: np.random.Generator,
) -> List[np.ndarray]:
    """:func:`plan_batches` for ``passes`` passes, of which the last may be a part of one."""
    batch_frames = max(1, int(batch_seconds * SAMPLE_RATE / HUBERT_FRAMING.hop))
    plan: List[np.ndarray] = []
    while passes > 0:
        batches = plan_batches(frames, batch_frames, max_crop, rng)
        plan += batches if passes >= 1 else batches[: max(1, round(passes * len(batches)))]
        passes -= 1
    return plan


def _finite(loss: float, updates: int) -> float:
    if not math.isfinite(loss):
        raise SpireError(
            f"small HuBERT: the loss is {loss} after {updates} updates; lower learning_rate and"
            " front_end_learning_rate"
        )
    return loss


class _Optimizer:
    """AdamW with warm-up, linear decay and clipping over a known number of updates."""

    def __init__(self, parameters, rate: float, total: int, config: SmallHubertConfig):
        self.parameters = list(parameters)
        self.clip = config.grad_clip
        self.adamw = torch.optim.AdamW(
            self.parameters,
            lr=rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.adamw, lambda step: learning_rate_factor(step, total, config.warmup)
        )

    def update(self, loss: Tensor) -> None:
        self.adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.adamw.step()
        self.schedule.step()


def _max_crop(config: SmallHubertConfig) -> int:
    return max(
        2 * config.mask_span, int(config.max_crop_seconds * SAMPLE_RATE / HUBERT_FRAMING.hop)
    )


def train_front_end(
    model: MaskedPrediction,
    utterances: Sequence[Utterance],
    config: SmallHubertConfig,
    rng: np.random.Generator,
) -> List[float]:
    """Train front end and feature projection on visible frames, in place; the loss by update."""
    crop = _max_crop(config)
    frames = [len(utterance.labels) for utterance in utterances]
    plan = plan_passes(frames, config.front_end_passes, config.front_end_batch_seconds, crop, rng)
    hubert = model.hubert
    trained = (hubert.feature_extractor, hubert.feature_projection, model.front_end_head)
    optimizer = _Optimizer(
        itertools.chain.from_iterable(module.parameters() for module in trained),
        config.front_end_learning_rate,
        len(plan),
        config,
    )
    history: List[float] = []
    model.train()
    bar = progress(plan, desc="small HuBERT, front end", unit="batch")
    for batch in bar:
        loss = model.visible_loss(*crop_batch([utterances[index] for index in batch], crop, rng))
        history.append(_finite(loss.item(), len(history)))
        optimizer.update(loss)
        bar.set_postfix(loss=f"{history[-1]:.3f}", refresh=False)
    return history


def train_masked(
    model: MaskedPrediction,
    utterances: Sequence[Utterance],
    config: SmallHubertConfig,
    rng: np.random.Generator,
) -> List[Step]:
    """Masked prediction, all parameters, in place; loss and accuracy by update."""
    crop = _max_crop(config)
    frames = [len(utterance.labels) for utterance in utterances]
    plan = plan_passes(frames, config.passes, config.batch_seconds, crop, rng)
    optimizer = _Optimizer(model.parameters(), config.learning_rate, len(plan), config)
    history: List[Step] = []
    model.train()
    bar = progress(plan, desc="small HuBERT", unit="batch")
    for batch in bar:
        waveforms, labels = crop_batch([utterances[index] for index in batch], crop, rng)
        mask = span_mask(*labels.shape, config.mask_prob, config.mask_span, rng)
        masked, visible, accuracy = model(waveforms, labels, mask)
        _finite(masked.item(), len(history))
        loss = (masked + config.unmasked_weight * visible) / (1 + config.unmasked_weight)
        optimizer.update(loss)
        history.append(Step(masked.item(), visible.item(), accuracy.item()))
        bar.set_postfix(
            loss=f"{history[-1].loss:.3f}", acc=f"{history[-1].accuracy:.2f}", refresh=False
        )
    return history


@torch.no_grad()
def evaluate(
    model: MaskedPrediction, utterances: Sequence[Utterance], config: SmallHubertConfig, seed: int
) -> Step:
    """Loss and accuracy over the masked frames of ``utterances``, whole and one at a time."""
    rng = np.random.default_rng(seed)
    model.eval()
    total, masked = np.zeros(3), 0
    for utterance in utterances:
        waveforms, labels = crop_batch([utterance], len(utterance.labels), rng)
        mask = span_mask(*labels.shape, config.mask_prob, config.mask_span, rng)
        count = int(mask.sum())
        total += count * np.array([value.item() for value in model(waveforms, labels, mask)])
        masked += count
    return Step(*(total / masked).tolist())


def save(hubert: torch.nn.Module, directory: Path) -> None:
    """Write model and feature extractor as a Hugging Face directory (safetensors)."""
    from transformers import Wav2Vec2FeatureExtractor

    hubert.save_pretrained(directory)
    Wav2Vec2FeatureExtractor(
        feature_size=1,
        sampling_rate=SAMPLE_RATE,
        padding_value=0.0,
        do_normalize=True,
        return_attention_mask=True,
    ).save_pretrained(directory)


def train(
    data_dirs: Sequence[PathLike], out: PathLike, config: SmallHubertConfig, seed: int
) -> Step:
    """Train on Kaldi data directories and save to ``out``.

    The same data, settings, seed and number of threads give the same model.

    Returns:
        loss and accuracy of masked prediction on utterances that training did not see.

    Raises:
        SpireError: unreadable or too little audio, impossible settings, a diverging loss.
    """
    from transformers import HubertModel

    settings = hubert_config(config.model)
    utterances = load_utterances(data_dirs, config, seed)
    order = np.random.default_rng(seed).permutation(len(utterances))
    held_out = max(1, min(config.held_out, len(utterances) // 10))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MaskedPrediction(HubertModel(settings), config.num_clusters, config.logit_scale)
        rng = np.random.default_rng(seed)
        training = [utterances[index] for index in order[held_out:]]
        front_end_history = train_front_end(model, training, config, rng)
        history = train_masked(model, training, config, rng)
    result = evaluate(model, [utterances[index] for index in order[:held_out]], config, seed)
    model.hubert.eval()
    with atomic_dir(out) as aside:
        save(model.hubert, aside)
        write_json(
            aside / HISTORY,
            {
                "seed": seed,
                "config": dataclasses.asdict(config),
                "utterances": len(order) - held_out,
                "held_out": {"utterances": held_out, **result._asdict()},
                "front_end_loss": [round(loss, 5) for loss in front_end_history],
                **{
                    name: [round(getattr(step, name), 5) for step in history]
                    for name in Step._fields
                },
            },
        )
    return result
