"""A checkout of ESPnet in miniature: ``egs2/TEMPLATE``, Kaldi's ``utils``, a recipe ``xyz/st1``.

Its ``local/data.sh`` sources what those of ESPnet do and leaves tables with a name relative to the
recipe, a pipe, and English and German text in the cases of ``egs2/*/st1``.
"""

from pathlib import Path

from corpora.kaldi import audio

DB_SH = """\
# Ref: a line for each corpus; those that are empty are for users to fill in.
XYZ=
LIBRISPEECH=
FLEURS=downloads
MADE_UP="/data/made up"
if [[ "$(hostname -d)" == cluster.example ]]; then
    XYZ=/export/xyz
fi
"""
PATH_SH = """\
MAIN_ROOT=$PWD/../../..
export PATH=$PWD/utils/:$PATH
export LC_ALL=C
. ../../../tools/activate_python.sh
"""
CMD_SH = """\
cmd_backend='local'
if [ "${cmd_backend}" = local ]; then
    export train_cmd="run.pl"
    export cuda_cmd="run.pl"
    export decode_cmd="run.pl"
fi
"""
# As Kaldi's: options of the caller's variables.
PARSE_OPTIONS = """\
while [ $# -gt 0 ]; do
    case "$1" in
    --*)
        name="${1#--}"; name="${name//-/_}"
        [ -z "${!name+x}" ] && echo "$0: invalid option $1" 1>&2 && exit 1
        printf -v "$name" "%s" "$2"; shift 2 ;;
    *) break ;;
    esac
done
true
"""
DATA_SH = """\
#!/usr/bin/env bash
. ./path.sh || exit 1;
. ./cmd.sh || exit 1;
. ./db.sh || exit 1;
stage=0
src_lang=en
tgt_lang=
fail=false
. utils/parse_options.sh || exit 1;
log() { echo -e "(data.sh) $*"; }
log "stage 0: Data Downloading, by ${train_cmd}"
echo run >>runs
if [ -z "${tgt_lang}" ]; then
    log "Error: --tgt_lang is required"
    exit 2
fi
if ${fail}; then
    log "stage 1: Data Preparation"
    echo "Error: it seems that moses is not installed." >&2
    exit 3
fi
for set in train.${src_lang}-${tgt_lang} dev test; do
    mkdir -p data/${set}
    cat >data/${set}/wav.scp <<EOF
spk1-a downloads/my audio/spk1-a.wav
spk1-b cat 'downloads/my audio/spk1-b.wav' |
spk2-c utils/wav-copy.py 'downloads/my audio/spk2-c.wav' |
EOF
    printf 'spk1-a spk1\\nspk1-b spk1\\nspk2-c spk2\\n' >data/${set}/utt2spk
    printf 'spk1-a The house is red.\\nspk1-b He sees two dogs.\\nspk2-c It rains, again!\\n' \\
        >data/${set}/text.tc.${src_lang}
    printf 'spk1-a Das Haus ist rot.\\nspk1-b Er sieht zwei Hunde.\\n' \\
        >data/${set}/text.tc.${tgt_lang}
    printf 'spk2-c Es regnet, wieder!\\n' >>data/${set}/text.tc.${tgt_lang}
    tr -d '.,!' <data/${set}/text.tc.${src_lang} | tr A-Z a-z >data/${set}/text.lc.rm.${src_lang}
    cp data/${set}/text.lc.rm.${src_lang} data/${set}/text
done
log "Successfully finished."
"""
# A program of the checkout that a pipe names by its path.
WAV_COPY = '#!/usr/bin/env bash\nexec cat "$1"\n'


def executable(path: Path, text: str) -> Path:
    """Write a script; return ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def build(root: Path) -> Path:
    """Write the checkout; returns it. Kaldi is installed where ESPnet has it."""
    template = root / "egs2/TEMPLATE/asr1"
    template.mkdir(parents=True)
    for name, text in (("db.sh", DB_SH), ("path.sh", PATH_SH), ("cmd.sh", CMD_SH)):
        (template / name).write_text(text)
    kaldi = root / "tools/kaldi/egs/wsj/s5"
    (kaldi / "steps").mkdir(parents=True)
    executable(kaldi / "utils/parse_options.sh", PARSE_OPTIONS)
    executable(kaldi / "utils/wav-copy.py", WAV_COPY)
    (root / "tools/activate_python.sh").write_text("")
    recipe = root / "egs2/xyz/st1"
    recipe.mkdir(parents=True)
    for name in ("db.sh", "path.sh"):
        (recipe / name).symlink_to(f"../../TEMPLATE/asr1/{name}")
    (recipe / "cmd.sh").write_text(CMD_SH)
    for name in ("utils", "steps"):
        (recipe / name).symlink_to(f"../../../tools/kaldi/egs/wsj/s5/{name}")
    executable(recipe / "local/data.sh", DATA_SH)
    audio(recipe)
    return root
