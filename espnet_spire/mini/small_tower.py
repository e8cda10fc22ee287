"""STAND-IN for TowerBase-7B: a small Llama with Llama's tokenizer layout, trained on toy text.

What comes out is an ordinary Hugging Face directory: ``tokenizer.model`` (SentencePiece BPE with
byte fallback), ``tokenizer.json``, ``config.json``, ``model.safetensors``. Like Tower it has seen
monolingual and parallel text and no speech.
"""

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Sequence

import numpy as np
import torch

from espnet_spire.model.causal_lm import CausalLMLoss
from espnet_spire.text.prompts import mt_plain
from espnet_spire.train.collate import Document, collate
from espnet_spire.train.examples import encode_plain
from espnet_spire.train.plan import Plan, PlanSettings, micro_batches
from espnet_spire.train.schedule import learning_rate
from espnet_spire.utils.atomic import PathLike, atomic_dir, write_json
from espnet_spire.utils.datadir import TEXT, read_table, translation_file
from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.progress import progress


@dataclass
class SmallTowerConfig:
    """Sizes and training of the stand-in; the defaults suit two CPU cores."""

    vocab_size: int = 900
    hidden_size: int = 128
    intermediate_size: int = 352
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    initializer_range: float = 0.05
    max_position_embeddings: int = 1024
    passes: float = 2.0
    sequence_length: int = 256
    batch_sequences: int = 8
    micro_batch_tokens: int = 1024
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    weight_decay: float = 0.01
    directions_per_sentence: int = 3
    seed: int = 0


def training_texts(
    mono_dir: PathLike, parallel_dir: PathLike, langs: Sequence[str], per_sentence: int
) -> Iterator[str]:
    """Monolingual text of every language, and parallel text to and from English.

    Each parallel sentence appears in ``per_sentence`` of the 2·(L-1) directions, in turn.
    """
    for lang in langs:
        yield from read_table(Path(mono_dir) / f"{TEXT}.{lang}").values()
    tables: Dict[str, Dict[str, str]] = {
        lang: read_table(Path(parallel_dir) / translation_file(lang)) for lang in langs
    }
    others = [lang for lang in langs if lang != "en"]
    directions = [pair for lang in others for pair in (("en", lang), (lang, "en"))]
    for number, key in enumerate(tables["en"]):
        for offset in range(per_sentence):
            src, tgt = directions[(number * per_sentence + offset) % len(directions)]
            yield mt_plain(src, tgt, tables[src][key], tables[tgt][key])


def train_tokenizer(texts: Sequence[str], vocab_size: int, out: Path) -> None:
    """Write a SentencePiece BPE model in Llama's layout (<unk> <s> </s>, 256 bytes, pieces)."""
    import sentencepiece
    from transformers import LlamaTokenizer

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    out.mkdir(parents=True, exist_ok=True)
    (out / "tokenizer.model").write_bytes(model.getvalue())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    write_json(out / "tokenizer_config.json", settings)
    LlamaTokenizer.from_pretrained(out).save_pretrained(out)


def train_small_tower(
    mono_dir: PathLike,
    parallel_dir: PathLike,
    langs: Sequence[str],
    out: PathLike,
    config: SmallTowerConfig,
) -> float:
    """Train tokenizer and LM from scratch; returns the loss a token over the last steps."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if "en" not in langs:
        raise SpireError("--langs must have en: parallel text goes to and from it")
    texts = list(training_texts(mono_dir, parallel_dir, langs, config.directions_per_sentence))
    with atomic_dir(out) as aside:
        train_tokenizer(texts, config.vocab_size, aside)
        tokenizer = AutoTokenizer.from_pretrained(aside)
        torch.manual_seed(config.seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                initializer_range=config.initializer_range,
                max_position_embeddings=config.max_position_embeddings,
                tie_word_embeddings=False,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        )
        documents = [Document(*encode_plain(tokenizer, text)) for text in texts]
        loss = _train(model, documents, tokenizer.eos_token_id, config)
        model.save_pretrained(aside)
    logging.info("small Tower: %d parameters, loss %.3f", model.num_parameters(), loss)
    return loss


def _train(model, documents: List[Document], pad_id: int, config: SmallTowerConfig) -> float:
    lengths = np.array([len(document.input_ids) for document in documents])
    settings = PlanSettings(
        sequence_length=config.sequence_length,
        batch_sequences=config.batch_sequences,
        packing=True,
        seed=config.seed,
        num_epochs=config.passes,
    )
    plan = Plan.build(lengths.__getitem__, len(lengths), settings)
    network = CausalLMLoss(model).train()
    optimizer = torch.optim.AdamW(
        network.parameters(),
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
        fused=True,
    )
    recent: List[float] = []
    with progress(plan.batches(), total=plan.total_steps, desc="small Tower", unit="step") as bar:
        for step, sequences in enumerate(bar):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(
                    step,
                    total_steps=plan.total_steps,
                    warmup_steps=config.warmup_steps,
                    peak=config.learning_rate,
                    final_ratio=0.1,
                )
            optimizer.zero_grad(set_to_none=True)
            targets, total = int((lengths[np.concatenate(sequences)] - 1).sum()), 0.0
            row_lengths = np.array([lengths[sequence].sum() for sequence in sequences])
            for piece in micro_batches(sequences, row_lengths, config.micro_batch_tokens):
                rows = [[documents[index] for index in sequence] for sequence in piece]
                num_documents = sum(map(len, rows))
                output = network(*collate(rows, pad_id), num_documents=num_documents)
                loss = output.loss_sum / targets
                loss.backward()
                total += loss.item()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            recent = (recent + [total])[-20:]
            bar.set_postfix(loss=f"{recent[-1]:.3f}", refresh=False)
    return float(np.mean(recent))
