"""Count utterances, hours and units of data sets, as in the paper's Table 1."""

from espnet_spire.utils.cli import ArgumentParser, run


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", nargs="+", required=True, help="Kaldi data directories")
    parser.add_argument(
        "--units", nargs="+", required=True, help="unit file of each, as extract_units wrote it"
    )
    parser.add_argument("--names", nargs="+", help="of the rows; by default of the directories")
    parser.add_argument("--codebook", help="whose encoder has another frame rate than 50 Hz")
    parser.add_argument("--out", required=True, help="directory for table, JSON, plot and lists")
    return parser


def _names(args):
    from pathlib import Path

    from espnet_spire.utils.errors import SpireError

    if len(args.units) != len(args.data_dir):
        raise SpireError(f"{len(args.data_dir)} --data_dir need as many --units")
    names = args.names or [Path(data_dir).resolve().name for data_dir in args.data_dir]
    if len(names) != len(args.data_dir):
        raise SpireError(f"{len(args.data_dir)} --data_dir need as many --names")
    if len(set(names)) != len(names):
        raise SpireError(f"two rows would have one name; give --names (have: {' '.join(names)})")
    return names


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.units import statistics
    from espnet_spire.units.codebook import codebook_identity
    from espnet_spire.utils.atomic import atomic_write, write_json
    from espnet_spire.utils.plots import plot_unit_totals
    from espnet_spire.utils.rejected import rejected_line

    names = _names(args)
    description = codebook_identity(args.codebook) if args.codebook else {}
    frames_of = statistics.frame_counter(description)
    out = Path(args.out)
    rows = []
    with atomic_write(out / "without_units.tsv") as missing:
        for name, data_dir, units in zip(names, args.data_dir, args.units, strict=True):
            rows.append(
                statistics.count_units(
                    name,
                    data_dir,
                    units,
                    frames_of=frames_of,
                    on_missing=lambda key, reason, name=name: missing.write(
                        f"{name}\t{rejected_line(key, reason)}"
                    ),
                )
            )
    total = statistics.total_of(rows)
    frame_rate = description.get("frame_rate") or 50.0
    write_json(
        out / "unit_stats.json",
        {
            "frame_rate": frame_rate,
            "sets": [statistics.as_json(row) for row in rows],
            "total": statistics.as_json(total),
        },
    )
    table = statistics.markdown_table([*rows, total])
    with atomic_write(out / "unit_stats.md") as stream:
        stream.write(table)
    plot_unit_totals(
        [statistics.as_json(row) for row in rows],
        statistics.as_json(total),
        frame_rate,
        out / "unit_stats.png",
    )
    print(table, end="")
    if total.without_units:
        print(f"{total.without_units} utterances without units: {out / 'without_units.tsv'}")


if __name__ == "__main__":
    run(main)
