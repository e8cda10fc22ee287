"""The paper's tables with our scores: Markdown on the terminal; LaTeX and a page with charts and
examples as files.

  show_tables exp --html RESULTS.html
  show_tables exp/spire_it_spirefull_x/decode_greedy exp/spire_it_spirefull_x/decode_beam4
  show_tables exp Whisper-base=exp/whisper_base     # the scores of a system of that name
"""

from pathlib import Path
from typing import Optional, Sequence

from espnet_spire.utils.atomic import atomic_write
from espnet_spire.utils.cli import ArgumentParser, run
from espnet_spire.utils.errors import SpireError


def get_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument(
        "dirs",
        nargs="+",
        metavar="[NAME=]DIR",
        help="experiments, one of them, or one <inference_tag> in it; with NAME: any directory of"
        " <inference_tag>/<set>/<task>.<src>-<tgt>/score_*, of the system called so",
    )
    parser.add_argument("--html", type=Path, help="write the page here")
    parser.add_argument("--markdown", type=Path, help="write the tables here, print none")
    parser.add_argument("--latex", type=Path, help="write the tables here, for \\input")
    parser.add_argument("--title", default="SPIRE: results", help="of the page")
    parser.add_argument("--speech_lang", default="en", help="language of the speech")
    parser.add_argument(
        "--examples", type=int, default=10, help="the worst of each job, 0 for none"
    )
    parser.add_argument(
        "--raw_dir", type=Path, default=Path("dump/raw"), help="has audio and units of <set>/"
    )
    parser.add_argument(
        "--units_name", help="file with the units in <raw_dir>/<set>/ (None: the only one)"
    )
    parser.add_argument(
        "--max_audio_mib", type=float, default=8.0, help="of audio in the page, 0 for none"
    )
    parser.add_argument(
        "--link_audio", action="store_true", help="link to the audio files, put none into the page"
    )
    return parser


def main(cmd: Optional[Sequence[str]] = None) -> None:
    """Print the tables and write what was asked for."""
    args = get_parser().parse_args(cmd)
    for name in ("examples", "max_audio_mib"):
        if getattr(args, name) < 0:
            raise SpireError(f"--{name} {getattr(args, name)}: cannot be below 0")
    from espnet_spire.score.layout import find
    from espnet_spire.score.tables import formats
    from espnet_spire.score.tables.show import show

    found = find(args.dirs)
    shown = show(found, speech_lang=args.speech_lang)
    text = formats.markdown(shown.tables)
    text += "".join(f"\n- {note}" for note in shown.notes) + "\n" * bool(shown.notes)
    if not args.markdown:
        print(text, end="")
    for path, content in ((args.markdown, text), (args.latex, formats.latex(shown.tables))):
        if path:
            _write(path, content)
    if args.html:
        _write(args.html, _page(args, found))
        print(f"{args.html}: {args.html.stat().st_size / 2**20:.1f} MiB; open it in a browser")


def _page(args, found) -> str:
    from espnet_spire.score.tables.clips import Clips
    from espnet_spire.score.tables.examples import collect_examples
    from espnet_spire.score.tables.page import Content, page
    from espnet_spire.score.tables.show import show

    shown = show(found, speech_lang=args.speech_lang, others=True)
    kinds, examples = collect_examples(found, args.examples)
    clips = Clips(
        args.raw_dir,
        units_name=args.units_name,
        max_bytes=int(args.max_audio_mib * 2**20),
        link_from=args.html.parent if args.link_audio else None,
    )
    content = Content(
        args.title,
        shown.results,
        shown.tables,
        shown.charts(),
        kinds,
        examples,
        args.examples,
        shown.notes,
    )
    return page(content, clips)


def _write(path: Path, content: str) -> None:
    with atomic_write(path) as stream:
        stream.write(content)


if __name__ == "__main__":
    run(main)
