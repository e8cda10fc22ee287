"""Decode ASR, MT, ST (direct, in two turns, self-cascade), post-editing and NER (stage 12)."""

from espnet_spire.text.jobs import TASKS
from espnet_spire.utils.cli import (
    ArgumentParser,
    add_generation_options,
    add_listening_options,
    add_search_options,
    add_server_options,
    add_shard_options,
    check_shard,
    default_device,
    run,
)


def get_parser():
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="directory or hub name")
    parser.add_argument("--task", choices=TASKS)
    parser.add_argument("--src_lang", default="en", help="with --task")
    parser.add_argument("--tgt_lang", help="with --task; the source language for asr and ner")
    parser.add_argument("--jobs", nargs="+", default=[], help="several: TASK.SRC-TGT …")
    audio = parser.add_mutually_exclusive_group(required=True)
    audio.add_argument("--data_dir", help="Kaldi data directory")
    audio.add_argument("--wav", nargs="+", metavar="FILE", help="audio files in its place")
    parser.add_argument(
        "--units", help="the directory's unit file, for speech tasks; without it audio is encoded"
    )
    parser.add_argument("--speech_lang", default="en", help="language that is spoken")
    parser.add_argument("--out", required=True, help="results go to OUT/TASK.SRC-TGT/text")
    parser.add_argument(
        "--backend",
        default="hf",
        choices=["hf", "vllm"],
        help="what runs the model in this process, unless a --server does",
    )
    add_generation_options(parser)
    add_search_options(parser)
    add_listening_options(parser)
    add_server_options(parser)
    add_shard_options(parser)
    return parser


def _jobs(args):
    from espnet_spire.text.jobs import Job, check_job, parse_job
    from espnet_spire.utils.errors import SpireError

    jobs = [parse_job(name) for name in args.jobs]
    if args.task:
        jobs.append(check_job(Job(args.task, args.src_lang, args.tgt_lang or args.src_lang)))
    if not jobs:
        raise SpireError("nothing to decode: give --task or --jobs")
    return jobs


def _search(args):
    from espnet_spire.decode.search import Search

    drawn = (args.do_sample, args.temperature, args.top_p)
    return Search(args.num_beams, *drawn, args.seed).check()


def _answerer(args):
    options = {"max_new_tokens": args.max_new_tokens, "search": _search(args)}
    if args.server:
        from espnet_spire.decode.server import ServerGenerator, server_settings

        return ServerGenerator.of_model(args.model, server_settings(args), **options)
    if args.backend == "vllm":
        from espnet_spire.decode.vllm import VllmGenerator

        return VllmGenerator(args.model, dtype=args.dtype, **options)
    from espnet_spire.decode.generate import Generator

    return Generator(
        args.model,
        device=default_device(args.device, args.shard),
        dtype=args.dtype,
        batch_tokens=args.batch_tokens,
        **options,
    )


def _identity(args):
    """What answers depend on."""
    from espnet_spire.decode.answers import model_identity

    how = {"server_model": args.server_model or args.model} if args.server else {}
    how = how or {"backend": args.backend, "dtype": args.dtype}
    model = model_identity(args.model)
    return {"model": model, **how, "limit": args.max_new_tokens, "search": list(_search(args))}


def _units(args, jobs, data_dir):
    """The unit file; made of the audio where a job needs one and there is none."""
    from pathlib import Path

    from espnet_spire.decode.answers import load_tokenizer
    from espnet_spire.decode.jobs import SPEECH_PROMPTS
    from espnet_spire.utils.errors import SpireError

    if args.units or not any(job.task in SPEECH_PROMPTS for job in jobs):
        return args.units
    if args.num_shards > 1:
        raise SpireError("--num_shards needs --units: make them with extract_units first")
    from espnet_spire.decode.listen import Listener

    units = Path(args.out) / "units"
    listener = Listener(
        args.model,
        load_tokenizer(args.model),
        **{"codebook": args.codebook, "encoder": args.encoder, "layer": args.layer},
        device=default_device(args.device, args.shard),
        dtype=args.encoder_dtype,
    )
    listener.extract(data_dir, units)
    return units


def main(cmd=None):
    args = get_parser().parse_args(cmd)
    from pathlib import Path

    from espnet_spire.decode.results import check_speech, merge, say
    from espnet_spire.decode.run import decode

    check_shard(args.num_shards, args.shard)
    jobs = _jobs(args)
    _search(args)
    data_dir = args.data_dir
    if args.wav:
        from espnet_spire.decode.listen import write_wav_dir

        data_dir = write_wav_dir(args.wav, Path(args.out) / "wav")
    common = {"data_dir": data_dir, "out": args.out, "speech_lang": args.speech_lang}
    if args.merge:
        merge(jobs, **common, num_shards=args.num_shards)
        return
    check_speech(jobs, data_dir)  # before units are looked for
    decode(
        lambda: _answerer(args),
        jobs,
        **common,
        units=_units(args, jobs, data_dir),
        identity=_identity(args),
        num_shards=args.num_shards,
        shard=args.shard,
    )
    if args.wav:
        say(jobs, args.out)


if __name__ == "__main__":
    run(main)
