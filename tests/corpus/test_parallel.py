"""Parallel text: what files of a pair there are, both tables, and lines that do not belong."""

import gzip
import zipfile

import pytest
from corpora import moses
from corpora.material import say
from corpora.text_checks import error_of, listed, prepare_text

from espnet_spire.bin.prepare_text import main
from espnet_spire.utils.atomic import read_json
from espnet_spire.utils.datadir import text_tables, validate_data_dir
from espnet_spire.utils.errors import SpireError


@pytest.fixture
def root(tmp_path):
    return moses.build(tmp_path / "par allel", ("de", "zh"))


EUROPARL = "Euro_parl_de_Europarl.de-en"


def test_every_form_of_a_pair_in_either_order(root, tmp_path):
    out = tmp_path / "parallel_en-de"
    tables = prepare_text("parallel", out, "--root", root, "--split", "en-de")
    assert text_tables(out) == ["text.tc.de", "text.tc.en"]
    english, german = tables["text.tc.en"], tables["text.tc.de"]
    assert validate_data_dir(out) == 4 * moses.PAIRS + 4
    names = {"Books_de-en": 200, EUROPARL: 0, "news.en-de": 100, "wiki.en-de": 300}
    assert list(dict.fromkeys(key.split("#")[0] for key in english)) == list(names)
    for name, first in names.items():
        said = say(first + 4)
        key = f"{name}#000000005"
        assert (english[key], german[key]) == (said["en"], said["de"])
    odd = {int(key[-2:]): (english[key], german[key]) for key in english if EUROPARL in key}
    assert {number: odd[number] for number in odd if number > moses.PAIRS} == {
        21: ("Windows", "Fenster"),
        22: ("a b", "c"),
        23: ("tab here", "d"),
        25: ("unit \U000f0001", "e"),
    }
    folder = root / "Euro parl de"
    assert listed(out / "left_out.tsv") == {
        f"{EUROPARL}#000000024": f"it is empty ({folder}/Europarl.de-en.en, line 24)",
        f"{EUROPARL}#000000026": f"it is empty ({folder}/Europarl.de-en.en, line 26)",
    }
    report = read_json(out / "preparation.json")
    assert (report["read"], report["kept"], report["left_out"]) == (86, 84, 2)


def test_a_draw_keeps_pairs_together(root, tmp_path):
    whole = prepare_text("parallel", tmp_path / "all", "--root", root, "--split", "en-zh")
    drawn = prepare_text(
        *("parallel", tmp_path / "some", "--root", root, "--split", "en-zh"),
        *("--max_documents", 30),
    )
    assert [len(table) for table in drawn.values()] == [30, 30]
    assert all(drawn[name].items() < whole[name].items() for name in whole)
    assert drawn["text.tc.en"].keys() == drawn["text.tc.zh"].keys()


def test_files_that_are_named(tmp_path, capsys):
    (tmp_path / "a.fr").write_text("un\ndeux\n")
    (tmp_path / "a.en").write_text("one\ntwo\n")
    with gzip.open(tmp_path / "b x.tsv.gz", "wt") as stream:
        stream.write("7\tthree\ttrois\n8\tfour\tquatre\n")
    files = [str(tmp_path / "a"), str(tmp_path / "*.tsv.gz")]
    options = ["--split", "fr-en", "--files", *files, "--columns", "3", "2"]
    tables = prepare_text("parallel", tmp_path / "out", *options)
    assert list(tables["text.tc.fr"].values()) == ["un", "deux", "trois", "quatre"]
    assert list(tables["text.tc.en"].values()) == ["one", "two", "three", "four"]
    main(["--corpus", "parallel", "--print_index", *options])
    printed = capsys.readouterr().out.splitlines()
    assert printed == [str(tmp_path / name) for name in ("a.fr", "a.en", "b x.tsv.gz")]


@pytest.mark.parametrize("longer", ["en", "de"])
def test_sides_with_different_numbers_of_lines(tmp_path, longer):
    for lang in ("en", "de"):
        (tmp_path / f"x.{lang}").write_text("line\n" * (7 if lang == longer else 4))
    error = error_of(
        *("--corpus", "parallel", "--split", "en-de", "--files", tmp_path / "x"),
        *("--out", tmp_path / "out"),
    )
    lines = {lang: 7 if lang == longer else 4 for lang in ("en", "de")}
    assert error == (
        f"{tmp_path}/x.en has {lines['en']} lines and {tmp_path}/x.de {lines['de']}: they do not"
        " belong together line by line"
    )
    assert not (tmp_path / "out").exists()


def test_lines_that_are_no_pairs_are_listed(tmp_path):
    (tmp_path / "x.en").write_bytes(b"one\ntw\xffo\nthree\n")
    (tmp_path / "x.de").write_bytes(b"eins\nzwei\ndr\xffei\n")
    (tmp_path / "y.tsv").write_bytes(b"a\tb\nc\td\te\nf\n\xff\tg\nh\ti\n")
    options = ["--split", "en-de", "--files", tmp_path / "x", tmp_path / "y.tsv"]
    error = error_of("--corpus", "parallel", *options, "--out", tmp_path / "out")
    first = "x#000000002: not valid UTF-8 (invalid start byte)"
    assert error.startswith(f"parallel en-de: 5 of 8 texts are unusable, first {first}")
    tables = prepare_text("parallel", tmp_path / "out", *options, "--max_rejected", 0.7)
    assert tables["text.tc.en"] == {"x#000000001": "one", "y#000000001": "a", "y#000000005": "h"}
    assert tables["text.tc.de"] == {"x#000000001": "eins", "y#000000001": "b", "y#000000005": "i"}
    x, y = tmp_path / "x", tmp_path / "y.tsv"
    assert listed(tmp_path / "out/rejected.tsv") == {
        "x#000000002": f"not valid UTF-8 (invalid start byte) ({x}.en, line 2)",
        "x#000000003": f"not valid UTF-8 (invalid start byte) ({x}.de, line 3)",
        "y#000000002": f"3 columns where 2 were expected: a tab within a text ({y}, line 2)",
        "y#000000003": f"1 columns where 2 were expected: a tab within a text ({y}, line 3)",
        "y#000000004": f"not valid UTF-8 (invalid start byte) ({y}, line 4)",
    }


def test_archives_that_were_cut_off(tmp_path):
    for lang in ("en", "de"):
        with gzip.open(tmp_path / f"x.{lang}.gz", "wt") as stream:
            stream.writelines(f"{lang} {number * 7919 % 10007}\n" for number in range(5000))
    path = tmp_path / "x.de.gz"
    path.write_bytes(path.read_bytes()[:-3000])
    options = ["--split", "en-de", "--files", tmp_path / "x"]
    error = error_of("--corpus", "parallel", *options, "--out", tmp_path / "out")
    assert error.startswith(f"{path}: cut off or damaged")
    tables = prepare_text("parallel", tmp_path / "out", *options, "--max_rejected", 0.01)
    pairs = list(zip(tables["text.tc.en"].values(), tables["text.tc.de"].values(), strict=True))
    assert 0 < len(pairs) < 5000 and all(a[3:] == b[3:] for a, b in pairs)
    assert list(listed(tmp_path / "out/rejected.tsv")) == ["x#end"]
    with zipfile.ZipFile(tmp_path / "en-de.txt.zip", "w") as archive:
        archive.writestr("x.en-de.en", "a\n")
        archive.writestr("x.en-de.de", "b\n")
    whole = (tmp_path / "en-de.txt.zip").read_bytes()
    (tmp_path / "en-de.txt.zip").write_bytes(whole[:-30])
    error = error_of(
        *("--corpus", "parallel", "--split", "en-de", "--out", tmp_path / "o"),
        *("--files", tmp_path / "en-de.txt.zip"),
    )
    assert error.startswith(f"{tmp_path}/en-de.txt.zip: cut off or damaged")
    # a byte that is not what it was
    (tmp_path / "en-de.txt.zip").write_bytes(whole.replace(b"a\n", b"c\n", 1))
    error = error_of(
        *("--corpus", "parallel", "--split", "en-de", "--out", tmp_path / "o"),
        *("--files", tmp_path / "en-de.txt.zip"),
    )
    assert "en-de.txt.zip: cut off or damaged (Bad CRC-32" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--root", "{r}"], "--split None: a pair such as en-de was expected"),
        (["--root", "{r}", "--split", "en-en"], "--split en-en: a pair"),
        (["--root", "{r}", "--split", "en-it"], "nothing of en-it there: NAME.en-it.en and"),
        (["--root", "{r}", "--files", "x", "--split", "en-de"], "--files and --root: one of them"),
        (["--files", "gone", "--split", "en-de"], "--files gone: neither a .tsv or .zip file nor"),
        (
            ["--files", "{r}/wiki.en-de.tsv", "--columns", "1", "4", "--split", "en-de"],
            r"wiki.en-de.tsv, line 1: 3 columns; --columns \(1, 4\)",
        ),
        (
            ["--files", "{r}/wiki.en-de.tsv", "--columns", "0", "1", "--split", "en-de"],
            "two numbers from 1 were expected",
        ),
        (
            ["--files", "{r}/wiki.en-de.tsv", "{r}/*.tsv", "--split", "en-de"],
            "wiki.en-de.tsv: one name in keys, wiki.en-de; rename a file|is there twice",
        ),
    ],
)
def test_what_cannot_be_asked(root, tmp_path, options, message):
    options = [option.replace("{r}", str(root)) for option in options]
    with pytest.raises(SpireError, match=message):
        main(["--corpus", "parallel", *options, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_side_that_is_missing_or_there_twice(root, tmp_path):
    (root / "news.en-de.de.gz").unlink()
    options = ["--corpus", "parallel", "--root", str(root), "--split", "en-de", "--out", "x"]
    with pytest.raises(SpireError, match="news.en-de.en.gz: its other side, .*en-de.de, is miss"):
        main(options)
    with gzip.open(root / "news.en-de.de.gz", "wt") as stream:
        stream.write("\n")
    for lang in ("en", "de"):
        (root / f"Books.de-en.{lang}").write_text("unpacked\n")
    with pytest.raises(SpireError, match="Books.de-en.en: is there in an archive, too; move one"):
        main(options)
