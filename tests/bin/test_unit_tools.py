"""Entry points around codebooks and unit files."""

import json
import subprocess
import sys

import joblib
import numpy as np
import pytest
import soundfile
import torch
from helpers_lm import process_environment
from sklearn.cluster import MiniBatchKMeans

from espnet_spire.bin import (
    apply_unit_bpe,
    export_codebook,
    import_codebook,
    learn_unit_bpe,
    unit_stats,
)
from espnet_spire.units.codebook import Codebook, load_codebook, save_codebook
from espnet_spire.units.encoder import Pooling, load_encoder
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def km(tmp_path):
    """A k-means model of 32-wide features, as fairseq's script leaves it."""
    points = np.random.default_rng(0).normal(size=(100, 32)).astype(np.float32)
    model = MiniBatchKMeans(5, n_init=1, random_state=0).fit(points)
    joblib.dump(model, tmp_path / "km.bin")
    return tmp_path / "km.bin"


def test_import_with_what_is_known_of_the_encoder(km, tmp_path, stable_hubert, capsys):
    command = ["--joblib", str(km), "--trust-pickle", "--out", str(tmp_path / "book")]
    import_codebook.main([*command, "--encoder", stable_hubert, "--layer", "2"])
    assert capsys.readouterr().out == f"{tmp_path / 'book'}: 5 clusters of 32\n"
    codebook = load_codebook(tmp_path / "book")
    codebook.check_encoder(load_encoder(stable_hubert, 2).description)
    with pytest.raises(SpireError, match="learned with layer 2 .*gives 1"):
        codebook.check_encoder(load_encoder(stable_hubert, 1).description)

    settings = ["--normalization_eps", "1e-5", "--pooling", "max", "--pool_frames", "2"]
    import_codebook.main([*command, "--encoder", stable_hubert, "--layer", "2", *settings])
    pooled = load_encoder(stable_hubert, 2, normalization_eps=1e-5, pooling=Pooling("max", 2))
    load_codebook(tmp_path / "book").check_encoder(pooled.description)
    with pytest.raises(SpireError, match="normalization_eps 1e-05 .*gives 1e-07"):
        load_codebook(tmp_path / "book").check_encoder(load_encoder(stable_hubert, 2).description)


def test_import_mistakes(km, tmp_path, stable_hubert):
    command = ["--joblib", str(km), "--out", str(tmp_path / "book")]
    with pytest.raises(SpireError, match="add --trust_pickle"):
        import_codebook.main(command)
    command.append("--trust_pickle")
    with pytest.raises(SpireError, match="--encoder needs --layer"):
        import_codebook.main([*command, "--encoder", stable_hubert])
    with pytest.raises(SpireError, match="need --encoder"):
        import_codebook.main([*command, "--layer", "2"])
    with pytest.raises(SpireError, match="32 dimensions, the features of --encoder mfcc have 39"):
        import_codebook.main([*command, "--encoder", "mfcc"])
    assert not (tmp_path / "book").exists()


def test_export_and_back(km, tmp_path):
    out = ["--out", str(tmp_path / "book")]
    import_codebook.main(["--joblib", str(km), "--trust_pickle", *out])
    export_codebook.main(["--codebook", str(tmp_path / "book"), "--joblib", str(tmp_path / "e")])
    again = joblib.load(tmp_path / "e").cluster_centers_
    assert again.tobytes() == joblib.load(km).cluster_centers_.tobytes()
    out64 = ["--joblib", str(tmp_path / "e64"), "--dtype", "float64"]
    export_codebook.main(["--codebook", str(tmp_path / "book"), *out64])
    assert joblib.load(tmp_path / "e64").predict(again.astype(np.float64)).tolist() == [*range(5)]


def write_set(directory, samples):
    directory.mkdir()
    for key, count in samples.items():
        soundfile.write(directory / f"{key}.wav", np.zeros(count, np.float32), 16000)
    lines = [f"{key} {directory / key}.wav\n" for key in sorted(samples)]
    (directory / "wav.scp").write_text("".join(lines))
    return str(directory)


def test_unit_stats(tmp_path, capsys):
    # 720 samples make 2 frames, 1040 make 3
    first = write_set(tmp_path / "first", {"a": 720, "b": 1040})
    second = write_set(tmp_path / "second", {"c": 1040, "d": 100})
    (tmp_path / "u1").write_text("a 5\nb 1 2 1\n")
    (tmp_path / "u2").write_text("c 9 8\n")
    (tmp_path / "u2.rejected.tsv").write_text("d\t100 samples are shorter than one frame\n")
    units = ["--units", str(tmp_path / "u1"), str(tmp_path / "u2")]
    command = ["--data_dir", first, second, *units, "--out", str(tmp_path / "o")]
    unit_stats.main(command)
    said = capsys.readouterr().out
    table = (tmp_path / "o/unit_stats.md").read_text()
    missing = tmp_path / "o/without_units.tsv"
    assert said == table + f"1 utterances without units: {missing}\n"
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        *("first", "second", "Total")
    ]
    stats = json.loads((tmp_path / "o/unit_stats.json").read_text())
    assert [row["units"] for row in stats["sets"]] == [4, 2] and stats["frame_rate"] == 50
    total = stats["total"]
    assert (total["utterances"], total["units_before_merging"], total["units"]) == (3, 8, 6)
    assert total["units_per_second"] == pytest.approx(6 * 16000 / 2800)
    assert missing.read_text() == "second\td\t100 samples are shorter than one frame\n"
    assert (tmp_path / "o/unit_stats.png").read_bytes().startswith(b"\x89PNG")

    unit_stats.main([*command, "--names", "One", "Two"])
    assert "| One " in capsys.readouterr().out
    for names, said in ((["one"], "as many --names"), (["x", "x"], "two rows would have one")):
        with pytest.raises(SpireError, match=said):
            unit_stats.main([*command, "--names", *names])
    with pytest.raises(SpireError, match="2 --data_dir need as many --units"):
        unit_stats.main([*command, "--units", str(tmp_path / "u1")])


def test_unit_stats_at_another_frame_rate(tmp_path):
    description = {"encoder_type": "hubert", "pool_frames": 2, "frame_rate": 25.0}
    description.update(num_clusters=10, dim=2)
    save_codebook(Codebook(torch.zeros(10, 2), description), tmp_path / "book")
    data = write_set(tmp_path / "data", {"a": 1040})
    (tmp_path / "u").write_text("a 5 7\n")
    files = ["--units", str(tmp_path / "u"), "--out", str(tmp_path / "o")]
    unit_stats.main(["--data_dir", data, *files, "--codebook", str(tmp_path / "book")])
    stats = json.loads((tmp_path / "o/unit_stats.json").read_text())
    # 3 frames are a pair and one alone
    assert stats["frame_rate"] == 25 and stats["total"]["units_before_merging"] == 2
    (tmp_path / "book/codebook.json").write_text("[]")
    with pytest.raises(SpireError, match="codebook.json: not a JSON object"):
        unit_stats.main(["--data_dir", data, *files, "--codebook", str(tmp_path / "book")])


@pytest.fixture
def unit_files(tmp_path):
    (tmp_path / "u1").write_text("a 1 2 3 1 2\nb 1 2\n")
    (tmp_path / "u2").write_text("c 0 1 2 3\nd\n")
    return [str(tmp_path / "u1"), str(tmp_path / "u2")]


def test_unit_bpe_there_and_back(unit_files, tmp_path, capsys):
    save_codebook(Codebook(torch.zeros(4, 2), {"num_clusters": 4, "dim": 2}), tmp_path / "book")
    model = str(tmp_path / "bpe")
    command = ["--units", *unit_files, "--vocab_size", "5", "--out", model]
    learn_unit_bpe.main([*command, "--codebook", str(tmp_path / "book")])
    assert "5 pieces from 3 of 3 utterances, which become 36.4% shorter" in capsys.readouterr().out
    stored = json.loads((tmp_path / "bpe/unit_bpe.json").read_text())
    assert stored["codebook"]["num_clusters"] == 4 and len(stored["codebook"]["sha256"]) == 64

    outs = [str(tmp_path / "o1"), str(tmp_path / "o2")]
    apply_unit_bpe.main(["--units", *unit_files, "--model", model, "--out", *outs])
    assert (tmp_path / "o1").read_text() == "a 4 3 4\nb 4\n"
    assert (tmp_path / "o2").read_text() == "c 0 4 3\nd\n"
    assert f"{outs[0]}: 7 numbers became 4\n" in capsys.readouterr().out
    back = [str(tmp_path / "b1"), str(tmp_path / "b2")]
    apply_unit_bpe.main(["--units", *outs, "--model", model, "--out", *back, "--invert"])
    for i in "12":
        assert (tmp_path / f"b{i}").read_text() == (tmp_path / f"u{i}").read_text()
    assert not list(tmp_path.glob("*.rejected.tsv"))

    # Whoever reads the subwords is told as much as who reads the units.
    (tmp_path / "u1.rejected.tsv").write_text("z\tno samples\n")
    apply_unit_bpe.main(["--units", *unit_files, "--model", model, "--out", *outs])
    assert [path.name for path in tmp_path.glob("o*.rejected.tsv")] == ["o1.rejected.tsv"]
    assert (tmp_path / "o1.rejected.tsv").read_text() == "z\tno samples\n"

    learn_unit_bpe.main([*command, "--num_units", "4", "--max_utterances", "1"])
    assert "from 1 of 3 utterances" in capsys.readouterr().out


def test_unit_bpe_mistakes(unit_files, tmp_path):
    model = str(tmp_path / "bpe")
    with pytest.raises(SystemExit):
        learn_unit_bpe.main(["--units", *unit_files, "--vocab_size", "5", "--out", model])
    with pytest.raises(SpireError, match="learn_unit_bpe makes it"):
        apply_unit_bpe.main(["--units", *unit_files, "--model", model, "--out", "x", "y"])
    with pytest.raises(SpireError, match="2 --units need as many --out"):
        apply_unit_bpe.main(["--units", *unit_files, "--model", model, "--out", "x"])
    with pytest.raises(SpireError, match="u1 is both in --units and in --out"):
        apply_unit_bpe.main(
            ["--units", unit_files[0], "--model", model, "--out", str(tmp_path / "bpe/../u1")]
        )
    size = ["--vocab_size", "5", "--num_units", "4"]
    learn_unit_bpe.main(["--units", *unit_files, *size, "--out", model])
    (tmp_path / "u2").write_text("c 9\n")
    out = tmp_path / "out"
    with pytest.raises(SpireError, match="u2: c: unit 9"):
        apply_unit_bpe.main(["--units", unit_files[1], "--model", model, "--out", str(out)])
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_parsers_import_nothing_heavy():
    code = """
import sys
from espnet_spire.bin import apply_unit_bpe, export_codebook, import_codebook, learn_unit_bpe
from espnet_spire.bin import unit_stats
for module in (apply_unit_bpe, export_codebook, import_codebook, learn_unit_bpe, unit_stats):
    module.get_parser()
heavy = ("torch", "transformers", "sklearn", "sentencepiece", "matplotlib", "numpy")
print([name for name in heavy if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=process_environment()
    )
    assert done.stdout == "[]\n", done.stderr
