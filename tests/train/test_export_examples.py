"""Examples back to text: what is exported and read in again gives the same ids."""

import json

import pytest
from datasets import load_from_disk
from helpers_lm import UNITS_NAME, make_data_dir, write_blocks

from espnet_spire.bin import export_mixture
from espnet_spire.text.prompts import CHAT_TEMPLATE
from espnet_spire.train.build import build_examples
from espnet_spire.train.export_examples import export_examples
from espnet_spire.utils.errors import SpireError


def build(mix, tokenizer, out):
    build_examples(mix, tokenizer, out, units_name=UNITS_NAME, variant="v", part_rows=9)
    return load_from_disk(str(out / "dataset"))[:]


def entries(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def chatml(tmp_path, lm_data):
    for lang in ("en", "fr"):
        (lm_data / f"text.tc.{lang}").write_text((lm_data / "text").read_text())
    said = [[("human", f"Frage {i}\n"), ("gpt", "A"), ("human", "B"), ("gpt", "é")] for i in (1, 2)]
    jsonl = write_blocks(tmp_path / "b.jsonl", said)
    array = "[" + ", ".join(jsonl.read_text().splitlines()) + "]"
    (tmp_path / "b.json").write_text(array)
    data = str(lm_data)
    sources = [
        {"name": "asr", "task": "asr", "data_dir": data, "max_examples": 5, "repeat": 2},
        {"name": "gone", "task": "asr", "data_dir": data, "not_in": ["v"]},
        {"name": "st", "task": "st", "data_dir": data, "targets": ["de", "fr"], "range": [0, 0.5]},
        {"name": "mts", "task": "st_multi_turn", "data_dir": data, "targets": ["de"]},
        {"name": "mt", "task": "mt", "text_dir": data, "pairs": ["de-en"], "max_tokens": 300},
        {"name": "blocks", "task": "chat", "file": str(tmp_path / "b.json")},
    ]
    return {"format": "chatml", "max_length": 90, "seed": 2, "sources": sources}


def test_what_is_exported_gives_the_same_ids_when_it_is_read(tmp_path, chatml, lm_tokenizer):
    table = build(chatml, lm_tokenizer, tmp_path / "ex")
    out = tmp_path / "out.jsonl"
    count = export_examples(chatml, UNITS_NAME, tmp_path / "ex", out)
    assert count == len(table["key"]) > 40
    exported = entries(out)
    for name in ("key", "task", "lang"):
        assert [entry[name] for entry in exported] == table[name]
    source = {"name": "again", "task": "chat", "file": str(out), "with_units": True}
    again = build({**chatml, "sources": [source]}, lm_tokenizer, tmp_path / "again")
    for name in ("input_ids", "target_spans", "lang"):
        assert again[name] == table[name]
    # … and to a trainer that applies the model's chat template
    assert lm_tokenizer.chat_template == CHAT_TEMPLATE
    roles = {"human": "user", "gpt": "assistant"}
    for entry, ids in list(zip(exported, table["input_ids"], strict=True))[::7]:
        messages = [
            {"role": roles[turn["from"]], "content": turn["value"]}
            for turn in entry["conversations"]
        ]
        assert lm_tokenizer.apply_chat_template(messages, tokenize=False) == (
            lm_tokenizer.decode(ids)
        )


def test_plain_texts(tmp_path, lm_data, lm_tokenizer, caplog):
    (lm_data / "text.de").write_text("a das Brot\nb " + "das Brot " * 30 + "\nc \n")
    sources = [
        {"name": "asr", "task": "asr", "data_dir": str(lm_data), "max_examples": 7},
        {
            **{"name": "mono", "task": "mono", "text_dir": str(lm_data), "langs": ["de"]},
            "too_long": "cut",
        },
    ]
    mix = {"format": "plain", "max_length": 60, "seed": 0, "sources": sources}
    table = build(mix, lm_tokenizer, tmp_path / "ex")
    out = tmp_path / "out.jsonl"
    assert export_examples(mix, UNITS_NAME, tmp_path / "ex", out) == 9
    exported = entries(out)
    assert [entry["key"] for entry in exported] == table["key"]
    for entry, ids in zip(exported[:8], table["input_ids"], strict=False):
        assert lm_tokenizer(entry["text"]).input_ids + [2] == ids
    assert exported[8]["text"] == ("das Brot " * 30).strip()
    assert "source mono: 1 texts, cut to 60 tokens in the examples, are exported whole" in (
        caplog.text
    )


def test_examples_of_another_mixture_or_other_data(tmp_path, chatml, lm_tokenizer):
    build(chatml, lm_tokenizer, tmp_path / "ex")
    out = tmp_path / "out.jsonl"

    def export(mixture, folder="ex"):
        export_examples(mixture, UNITS_NAME, tmp_path / folder, out)

    with pytest.raises(SpireError, match="ex was made with seed 2, the mixture has 3"):
        export({**chatml, "seed": 3})
    with pytest.raises(SpireError, match="ex: example mts:utt00..de is not in the mixture's data"):
        export({**chatml, "sources": chatml["sources"][:3]})
    other = str(make_data_dir(tmp_path / "few", 3))
    with pytest.raises(SpireError, match="ex: source asr: its data, or what the mixture takes of"):
        export({**chatml, "sources": [{**chatml["sources"][0], "data_dir": other}]})
    with pytest.raises(SpireError, match="none/report.json: no such file"):
        export(chatml, "none")
    assert not out.exists()


@pytest.mark.parametrize("name", ["text", "text.tc.de", UNITS_NAME, "b.json"])
def test_data_that_changed_since(tmp_path, lm_data, chatml, lm_tokenizer, name):
    build(chatml, lm_tokenizer, tmp_path / "ex")
    path = tmp_path / name if name == "b.json" else lm_data / name
    before = path.read_text()
    changes = {"b.json": ("Frage 1", "Frage 7"), UNITS_NAME: ("utt003 ", "utt003 1 ")}
    old, new = changes.get(name, ("utt003 ", "utt003 so "))
    path.write_text(before.replace(old, new))
    assert path.read_text() != before
    with pytest.raises(SpireError, match="ex: source (asr|st|mts|mt|blocks): its data, or what"):
        export_examples(chatml, UNITS_NAME, tmp_path / "ex", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
    path.write_text(before)  # at another time: it is the content that counts
    assert export_examples(chatml, UNITS_NAME, tmp_path / "ex", tmp_path / "out.jsonl") > 40


def test_inputs_are_not_replaced(tmp_path, lm_data, chatml, lm_tokenizer):
    build(chatml, lm_tokenizer, tmp_path / "ex")
    for out in (
        *(tmp_path / "b.json", lm_data / "text", tmp_path / "ex" / "report.json"),
        *(tmp_path / "ex" / "dataset" / "state.json", tmp_path / "ex" / "dataset"),
    ):
        with pytest.raises(SpireError, match="--out .* is read from there"):
            export_examples(chatml, UNITS_NAME, tmp_path / "ex", out)
    (tmp_path / "folder").mkdir()
    with pytest.raises(SpireError, match="folder is a directory; name a file"):
        export_examples(chatml, UNITS_NAME, tmp_path / "ex", tmp_path / "folder")


@pytest.mark.parametrize("template", ["cpm3", "chatml"])
def test_llama_factorys_templates_are_our_prompts(tmp_path, chatml, lm_tokenizer, template):
    """Their slots, written down here: cpm3 is chatml with BOS before it."""
    assert "template: cpm3 (ChatML with BOS)" in export_mixture.get_parser().format_help()
    table = build(chatml, lm_tokenizer, tmp_path / "ex")
    export_examples(chatml, UNITS_NAME, tmp_path / "ex", tmp_path / "out.jsonl")
    user = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    slots = {"human": user, "gpt": "{}<|im_end|>\n"}
    prefix = {"cpm3": lm_tokenizer.bos_token, "chatml": ""}[template]
    for entry, ids in zip(entries(tmp_path / "out.jsonl"), table["input_ids"], strict=True):
        said = [slots[turn["from"]].format(turn["value"]) for turn in entry["conversations"]]
        ours = ids if template == "cpm3" else ids[1:]
        assert prefix + "".join(said) == lm_tokenizer.decode(ours)
