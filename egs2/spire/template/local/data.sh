#!/usr/bin/env bash
# Stage 1: makes data/<set>/ of each set that run.sh names. In it, a line an utterance, UTF-8:
#   wav.scp         <utterance> <audio file of any kind, or a command that writes it, with | behind>
#   text            <utterance> <transcript, with case and punctuation>
#   utt2spk         <utterance> <speaker>; names of utterances begin with their speaker's
#   text.tc.<lang>  <utterance> <translation>, where there is one: sets for speech translation
#   segments        <utterance> <recording> <start> <end in seconds>, where wav.scp has recordings
# sorted by `LC_ALL=C sort` (path.sh sets LC_ALL). Stage 2 checks all that and says what is wrong.
# Here are three ways. Keep one, and name it in the last line.
set -euo pipefail
# shellcheck disable=SC1091
. ./path.sh
# shellcheck disable=SC1091
. ./db.sh
python="${SPIRE_PYTHON:-python3}"

die() {
    echo "error: local/data.sh: $*" >&2
    exit 1
}

# Options of stage 1: --nj, and what run.sh --local_data_opts "--corpus DIR" gives.
corpus=downloads nj=1
while [ $# -gt 0 ]; do
    case "$1" in
    --corpus | --nj)
        [ $# -ge 2 ] || die "$1 needs a value"
        declare "${1#--}=$2"
        shift 2
        ;;
    *) die "unknown option $1" ;;
    esac
done

# 1. Tables that you write. Here: of <corpus>/<set>.tsv with the columns
#    name, speaker, audio file (relative to the corpus), transcript, German
# shellcheck disable=SC2016
own_tables() {
    for set in train dev test; do
        list="${corpus}/${set}.tsv"
        [ -f "${list}" ] || die "${list}: no such file; write own_tables for your corpus"
        mkdir -p "data/${set}"
        table() { # table NAME AWK-EXPRESSION-OF-ITS-VALUE
            awk -F '\t' -v corpus="${corpus}" "{ print \$2 \"-\" \$1 \" \" $2 }" "${list}" |
                sort >"data/${set}/$1"
        }
        table wav.scp 'corpus "/" $3'
        table utt2spk '$2'
        table text '$4'
        table text.tc.de '$5'
    done
}

# 2. A recipe of ESPnet's: its egs2/<recipe>/local/data.sh runs in its place (its db.sh says where the
#    corpus is), and what it leaves is imported. Words after -- are for its local/data.sh.
#    A directory that is there already: "${python}" -m espnet_spire.bin.import_data_dir --help
from_espnet() {
    local/espnet_data.sh --espnet_root "${ESPNET_ROOT:-../../..}" --recipe must_c/st1 \
        --src_lang en --tgt_langs de \
        --sets "train.en-de:train dev.en-de:dev tst-COMMON.en-de:test" --test_sets test -- de
}

# 3. A recipe of lhotse's, or its manifests (pip install lhotse). Recipes: lhotse.readthedocs.io.
from_lhotse() {
    import_lhotse() { "${python}" -m espnet_spire.bin.import_lhotse "$@"; }
    recipe=(--recipe librispeech --corpus_dir "${corpus}/LibriSpeech" --option "num_jobs=${nj}")
    import_lhotse "${recipe[@]}" --part train-clean-100 --out data/train
    import_lhotse "${recipe[@]}" --part dev-clean --out data/dev
    import_lhotse "${recipe[@]}" --part test-clean --out data/test --test_set
    # import_lhotse --recordings r.jsonl.gz --supervisions s.jsonl.gz \
    #     --text_field custom.orig_text --translation de=custom.german --out data/train
}

own_tables
