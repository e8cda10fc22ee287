"""Rewrite unit files with the subwords that learn_unit_bpe found, or back (stage 4, optional)."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--units", nargs="+", required=True, help="unit files")
    parser.add_argument("--model", required=True, help="directory that learn_unit_bpe wrote")
    parser.add_argument("--out", nargs="+", required=True, help="unit file to write for each")
    parser.add_argument("--invert", action="store_true", help="from subwords back to units")
    return parser


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.units.notation import units_to_line
    from espnet_spire.units.subwords import convert, load_unit_bpe
    from espnet_spire.units.unit_files import copy_rejected
    from espnet_spire.utils.atomic import atomic_write
    from espnet_spire.utils.errors import SpireError
    from espnet_spire.utils.progress import progress

    if len(args.out) != len(args.units):
        raise SpireError(f"{len(args.units)} --units need as many --out")
    for path in {Path(p).resolve() for p in args.units} & {Path(p).resolve() for p in args.out}:
        raise SpireError(f"{path} is both in --units and in --out; give --out another name")
    model = load_unit_bpe(args.model)
    for units, out in zip(args.units, args.out, strict=True):
        before = after = 0
        copy_rejected(units, out)
        with atomic_write(out) as stream:
            rows = convert(model, units, invert=args.invert)
            for key, old, new in progress(rows, desc="unit BPE", unit="utt"):
                before, after = before + len(old), after + len(new)
                stream.write(f"{key} {units_to_line(new)}".rstrip(" ") + "\n")
        print(f"{out}: {before} numbers became {after}")


if __name__ == "__main__":
    run(main)
