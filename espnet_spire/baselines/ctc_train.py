"""Train the CTC baseline with transformers' Trainer: resumable, the best checkpoint by CER.

Layout of the output directory::

    hf/              the best model, a Hugging Face directory; there when training has ended
    checkpoints/     the Trainer's, the last and the best
    rejected.tsv     training utterances that CTC cannot use; valid_rejected.tsv: of validation
    history.json     what the Trainer logged: losses, CER and WER of validation
    settings.json    what the training depends on
"""

import logging
import shutil
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

import jiwer
import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2Processor,
    set_seed,
)
from transformers.activations import ACT2FN
from transformers.utils.logging import disable_progress_bar

from espnet_spire.baselines.characters import (
    BLANK,
    SPACE,
    UNKNOWN,
    greedy_texts,
    vocabulary,
)
from espnet_spire.baselines.ctc_config import CtcConfig
from espnet_spire.baselines.ctc_data import (
    LengthBuckets,
    Padded,
    SpokenDataset,
    SpokenSet,
    read_spoken,
)
from espnet_spire.baselines.deep_ctc import HubertDeepCtc
from espnet_spire.decode.answers import model_identity
from espnet_spire.units.audio import SAMPLE_RATE
from espnet_spire.utils.atomic import PathLike, atomic_dir, read_json, write_json
from espnet_spire.utils.datadir import REJECTED, write_rejected
from espnet_spire.utils.digest import bytes_sha256
from espnet_spire.utils.errors import SpireError, Stopped
from espnet_spire.utils.progress import progress
from espnet_spire.utils.stopping import noted_signals, stop_wanted

HF_DIR = "hf"
CHECKPOINTS = "checkpoints"
HISTORY = "history.json"
SETTINGS = "settings.json"
# The Trainer writes it last: a checkpoint without it was cut short.
_LAST_OF_CHECKPOINT = "trainer_state.json"


def train_ctc(
    encoder: str,
    train_dir: PathLike,
    valid_dir: PathLike,
    out: PathLike,
    config: CtcConfig,
    *,
    device: str = "cpu",
) -> Path:
    """Train, or go on where a killed training stopped; returns the directory of the best model.

    On one machine and with one number of threads a training that was killed ends as one that was
    not.

    Args:
        encoder: directory or hub name of a HuBERT.
        train_dir, valid_dir: data directories with audio and ``text``.
        out: see the module's description.
        device: ``cpu`` or ``cuda``, all GPUs that this process sees; with torchrun one each.

    Raises:
        SpireError: no such encoder, nothing to train on, audio that cannot be read, or ``out`` is
            of a training with other settings.
    """
    out = Path(out)
    hubert, extractor = _read_encoder(encoder)
    settings = _settings(encoder, train_dir, valid_dir, config)
    _check_settings(out, settings)
    final = out / HF_DIR
    if final.is_dir():
        logging.info("%s is there already", final)
        return final
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / SETTINGS, settings)
    disable_progress_bar()  # of files that are read and written
    set_seed(config.seed)
    probe = HubertDeepCtc(_tiny(hubert, config))  # its frames are those of the model to be
    train = read_spoken(train_dir, probe.num_frames, config.max_seconds)
    valid = read_spoken(valid_dir, probe.num_frames, config.max_seconds)
    _list_rejected(train, train_dir, out / REJECTED)
    _list_rejected(valid, valid_dir, out / f"valid_{REJECTED}")
    tokenizer = _tokenizer(
        out, vocabulary((u.text for u in train.utterances), config.min_char_count)
    )
    processor = Wav2Vec2Processor(extractor, tokenizer)
    set_seed(config.seed)  # of the head's weights
    model = _model(encoder, hubert, len(tokenizer), config)
    trainer = _CtcTrainer(
        model,
        args=_arguments(out / CHECKPOINTS, config, device),
        data_collator=Padded(extractor),
        train_dataset=SpokenDataset(train.utterances, tokenizer),
        eval_dataset=SpokenDataset(valid.utterances, tokenizer),
        compute_metrics=lambda predicted: _error_rates(predicted, tokenizer),
        preprocess_logits_for_metrics=lambda logits, _labels: logits.argmax(-1),
        lengths=[utterance.num_samples for utterance in train.utterances],
        seed=config.seed,
    )
    course = _Course()
    trainer.add_callback(course)
    try:
        with noted_signals():
            trainer.train(resume_from_checkpoint=_last_checkpoint(out / CHECKPOINTS))
    except SpireError as error:
        # A worker's error comes with its traceback, whose last line it is.
        raise SpireError(str(error).strip().splitlines()[-1].split("SpireError: ")[-1]) from None
    if course.stopped:
        raise Stopped(f"{out}: stopped at update {trainer.state.global_step}, which is saved")
    if trainer.is_world_process_zero():
        write_json(out / HISTORY, trainer.state.log_history)
        with atomic_dir(final) as aside:
            trainer.model.save_pretrained(aside)
            processor.save_pretrained(aside)
        best = trainer.state.best_metric
        logging.info("best CER of validation: %.2f (%s)", best, trainer.state.best_model_checkpoint)
    return final


class _CtcTrainer(Trainer):
    """The Trainer with batches of similar length, in an order that is known without the past."""

    def __init__(self, *args: Any, lengths: List[int], seed: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        self._buckets = LengthBuckets(lengths, batch, seed)
        self.add_callback(_Epochs(self._buckets))
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthBuckets:
        return self._buckets


class _Course(TrainerCallback):
    """A bar, log lines, and a checkpoint when a scheduler announces the end."""

    def __init__(self) -> None:
        self.stopped = False
        self._bar: Any = None

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        done, total = state.global_step, state.max_steps
        self._bar = progress(total=total, initial=done, desc="CTC", unit="update")

    def on_step_end(self, args, state, control, **_: Any) -> None:
        self._bar.update(state.global_step - self._bar.n)
        if stop_wanted() and state.global_step < state.max_steps:
            self.stopped = control.should_save = control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **_: Any) -> None:
        said = ", ".join(f"{name} {value:.4g}" for name, value in (logs or {}).items())
        logging.info("update %d of %d: %s", state.global_step, state.max_steps, said)

    def on_train_end(self, args, state, control, **_: Any) -> None:
        self._bar.close()


class _Epochs(TrainerCallback):
    """Tells the sampler which epoch begins or, after a kill, goes on."""

    def __init__(self, sampler: LengthBuckets) -> None:
        self._sampler = sampler

    def on_epoch_begin(self, args, state, control, **_: Any) -> None:
        self._sampler.set_epoch(int((state.epoch or 0) + 1e-6))


def _arguments(directory: Path, config: CtcConfig, device: str) -> TrainingArguments:
    on_gpu = device.startswith("cuda")
    arguments = TrainingArguments(
        output_dir=str(directory),
        use_cpu=not on_gpu,
        bf16=config.dtype == "bfloat16" or (config.dtype == "auto" and on_gpu),
        num_train_epochs=config.num_epochs,
        per_device_train_batch_size=config.micro_batch_utterances,
        per_device_eval_batch_size=config.micro_batch_utterances,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,  # below 1 it is a share of the updates
        weight_decay=config.weight_decay,
        max_grad_norm=config.grad_clip,
        eval_strategy="steps",
        eval_steps=config.eval_interval_steps,
        save_strategy="steps",
        save_steps=config.eval_interval_steps,
        save_total_limit=1,  # and the best
        load_best_model_at_end=True,
        metric_for_best_model="cer",
        greater_is_better=False,
        logging_steps=max(1, min(100, config.eval_interval_steps)),
        report_to="none",
        dataloader_num_workers=config.num_workers,
        remove_unused_columns=False,
        label_names=["labels"],
        seed=config.seed,
        disable_tqdm=True,  # see _Course
    )
    devices = max(1, arguments.n_gpu) * max(1, arguments.world_size)
    share, left = divmod(config.batch_utterances, config.micro_batch_utterances * devices)
    if left:
        raise SpireError(
            f"batch_utterances: {config.batch_utterances} is no multiple of micro_batch_utterances"
            f" × devices ({config.micro_batch_utterances} × {devices})"
        )
    arguments.gradient_accumulation_steps = share
    return arguments


def _settings(
    encoder: str, train_dir: PathLike, valid_dir: PathLike, config: CtcConfig
) -> Dict[str, Any]:
    """JSON of all that the result depends on, but for the audio itself."""
    settings: Dict[str, Any] = {"encoder": model_identity(encoder), **vars(config)}
    del settings["num_workers"], settings["micro_batch_utterances"]
    for name, directory in (("train", train_dir), ("valid", valid_dir)):
        for table in ("wav.scp", "segments", "text"):
            path = Path(directory) / table
            if path.is_file():
                settings[f"{name} {table}"] = bytes_sha256(path.read_bytes())
    return settings


def _check_settings(out: Path, settings: Mapping[str, Any]) -> None:
    if not (out / SETTINGS).exists():
        return
    known = read_json(out / SETTINGS)
    other = [name for name in {**known, **settings} if known.get(name) != settings.get(name)]
    if other:
        raise SpireError(
            f"--output_dir {out} has a training with another {other[0]} in it; name another"
            " directory, or remove it"
        )


def _read_encoder(name: str):
    """Configuration and feature extractor of a HuBERT."""
    try:
        config = AutoConfig.from_pretrained(name)
        extractor = AutoFeatureExtractor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise SpireError(f"--encoder {name}: {str(error).splitlines()[0]}") from None
    if config.model_type != "hubert":
        raise SpireError(f"--encoder {name}: model type {config.model_type}, a hubert is needed")
    if extractor.sampling_rate != SAMPLE_RATE:
        raise SpireError(f"--encoder {name}: wants {extractor.sampling_rate} Hz, not 16000")
    return config, extractor


def _head(hubert, config: CtcConfig) -> Dict[str, Any]:
    if config.head_activation not in ACT2FN:
        raise SpireError(f"head_activation: {config.head_activation} is none of transformers'")
    return {
        "head_layers": config.head_layers,
        "head_size": config.head_size or hubert.hidden_size,
        "head_activation": config.head_activation,
        "head_dropout": config.dropout,
    }


def _tiny(hubert, config: CtcConfig):
    """The same convolutions with next to nothing behind them."""
    values = {**hubert.to_dict(), **_head(hubert, config)}
    values.update(num_hidden_layers=0, hidden_size=16, num_attention_heads=1, head_layers=0)
    values.update(intermediate_size=1, num_conv_pos_embedding_groups=1, num_conv_pos_embeddings=2)
    return type(hubert)(**values)


def _model(encoder: str, hubert, vocab_size: int, config: CtcConfig) -> HubertDeepCtc:
    changes = {**_head(hubert, config), "vocab_size": vocab_size, "pad_token_id": 0}
    changes.update(bos_token_id=None, eos_token_id=None)
    if config.encoder_dropout is not None:
        names = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout")
        changes.update(dict.fromkeys(names, float(config.encoder_dropout)))
    if config.mask_time_prob is not None:
        changes["mask_time_prob"] = float(config.mask_time_prob)
    for name, value in changes.items():
        setattr(hubert, name, value)
    try:
        model = HubertDeepCtc.from_pretrained(encoder, config=hubert, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise SpireError(f"--encoder {encoder}: {str(error).splitlines()[0]}") from None
    if config.freeze_feature_encoder:
        model.freeze_feature_encoder()
    return model


def _tokenizer(out: Path, vocab: Mapping[str, int]) -> Wav2Vec2CTCTokenizer:
    path = out / "vocab.json"
    write_json(path, vocab)
    return Wav2Vec2CTCTokenizer(
        str(path),
        bos_token=None,
        eos_token=None,
        unk_token=UNKNOWN,
        pad_token=BLANK,
        word_delimiter_token=SPACE,
    )


def _list_rejected(spoken: SpokenSet, data_dir: PathLike, path: Path) -> None:
    write_rejected(path, spoken.rejected)
    total = len(spoken.utterances) + len(spoken.rejected)
    if not spoken.utterances:
        key, reason = next(iter(spoken.rejected.items()))
        raise SpireError(f"{data_dir}: none of {total} utterances is of use; {key}: {reason}")
    if spoken.rejected:
        said = "%s: %d of %d utterances are left out, see %s"
        logging.warning(said, data_dir, len(spoken.rejected), total, path)


def _error_rates(predicted, tokenizer) -> Dict[str, float]:
    """CER and WER of validation, in percent, of spoken forms."""
    ids, labels = predicted.predictions, predicted.label_ids
    blank = tokenizer.pad_token_id
    said = greedy_texts(tokenizer, np.where(ids < 0, blank, ids))
    # Equal characters of a transcript are not to be merged.
    true = tokenizer.batch_decode(np.where(labels < 0, blank, labels), group_tokens=False)
    return {"cer": 100 * jiwer.cer(true, said), "wer": 100 * jiwer.wer(true, said)}


def _last_checkpoint(directory: Path) -> Optional[str]:
    """The newest whole checkpoint; what a kill cut short is removed."""
    found = {}
    for path in directory.glob("checkpoint-*"):
        try:
            read_json(path / _LAST_OF_CHECKPOINT)
            found[int(path.name.rpartition("-")[2])] = path
        except SpireError:
            shutil.rmtree(path)
    return str(found[max(found)]) if found else None
