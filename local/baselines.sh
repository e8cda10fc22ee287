#!/usr/bin/env bash
# The systems that SPIRE is compared with, on a recipe's own test sets: run from its directory.
#   stage 1  train HuBERT+CTC       needs stages 1 and 2 of the recipe (mini: and 3)
#   stage 2  decode with every system into <expdir>/baseline_<NAME>/<inference_tag>/<set>
#   stage 3  score; report and tables of the recipe have them from then on
# --systems holds NAME=KIND[:MODEL] …, KIND being ctc, whisper or seamless_m4t; ctc without a MODEL
# is what stage 1 trained. Whisper and CTC get the jobs of recognition alone.
# Options become variables in a loop over their names, which shellcheck cannot see.
# shellcheck disable=SC2154
set -euo pipefail

declare -A value=(
    [stage]=1 [stop_stage]=3 [ngpu]=1 [inference_nj]=1 [dumpdir]=dump [expdir]=exp [python]=python3
    [encoder]=facebook/hubert-large-ll60k [config]=conf/train_ctc.yaml [tag]=""
    [train_set]=train [valid_set]=dev [test_sets]=test [text_test_sets]="" [recipe]="" [corpora]=all
    [speech_lang]=en [speech_jobs]=asr.en-en [text_jobs]=""
    [systems]="HuBERT-large+CTC=ctc Whisper-base=whisper:openai/whisper-base Whisper-large-v3=whisper:openai/whisper-large-v3 SeamlessM4T=seamless_m4t:facebook/seamless-m4t-v2-large"
    [dtype]=float32 [inference_args]="" [inference_tag]=decode_greedy [metrics]=default [score_args]=""
)
die() {
    echo "error: $*" >&2
    exit 1
}
declare -A chosen=()
while [ $# -gt 0 ]; do
    name="${1#--}"
    name="${name//-/_}"
    if [ "${name}" = help ] || [ "$1" = -h ]; then
        sed -n '2,7s/^# //p' "$0"
        mapfile -t sorted < <(printf '%s\n' "${!value[@]}" | sort)
        for name in "${sorted[@]}"; do echo "  --${name} [${value[${name}]}]"; done
        exit 0
    fi
    [[ "$1" == --* && -n "${value[${name}]+known}" ]] || die "local/baselines.sh: unknown option $1"
    [ $# -ge 2 ] || die "option --${name} needs a value"
    value[${name}]="$2" chosen[${name}]=true
    shift 2
done
for name in "${!value[@]}"; do declare "${name}=${value[${name}]}"; done
for name in stage stop_stage ngpu inference_nj; do
    [[ "${!name}" =~ ^[0-9]+$ ]] || die "--${name} ${!name}: not a whole number"
done
[ -f ./path.sh ] || die "no path.sh here: start this from a recipe directory, such as egs2/spire/mini"
# shellcheck disable=SC1091
. ./path.sh
cuda_cmd="" decode_cmd=""
# shellcheck disable=SC1091
[ ! -f ./cmd.sh ] || . ./cmd.sh
command -v "${python}" >/dev/null || die "--python ${python} is not installed"
if [ -n "${recipe}" ]; then
    follows="$("${python}" -m espnet_spire.bin.recipe_settings --recipe "${recipe}" \
        --corpora "${corpora}" --out "${dumpdir}")"
    while IFS="=" read -r name words; do
        case "${name}" in
        test_sets | text_test_sets) [ -n "${chosen[${name}]+given}" ] || declare "${name}=${words}" ;;
        esac
    done <<<"${follows}"
fi

device=cpu job_cmd="${decode_cmd}"
[ "${ngpu}" -gt 0 ] && device=cuda job_cmd="${cuda_cmd}"
ctc="${expdir}/ctc_${tag:-$(basename "${config}" .yaml)}"
runs_stage() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }
step() { # step NAME HINT OPTION… -- COMMAND…
    "${python}" -m espnet_spire.bin.run_step --name "$1" --hint "$2" --expdir "${expdir}" "${@:3}"
}
# possible KIND JOBS DIRECTORY -> array "jobs": of the system, with sources and references in the set
possible() {
    local job all=()
    read -r -a all <<<"$2"
    jobs=()
    for job in "${all[@]}"; do
        case "$1:${job%%.*}" in
        *:asr | seamless_m4t:mt | seamless_m4t:st | seamless_m4t:st_cascade) jobs+=("${job}") ;;
        esac
    done
    if [ "${#jobs[@]}" -gt 0 ]; then
        local found
        found="$("${python}" -m espnet_spire.bin.possible_jobs --data_dir "$3" \
            --speech_lang "${speech_lang}" --jobs "${jobs[@]}")"
        mapfile -t jobs < <(printf '%s' "${found}")
    fi
}
references() { # references DIRECTORY -> array "texts"
    local table
    texts=()
    for table in "$1"/text "$1"/text.tc.*; do
        if [ -f "${table}" ]; then texts+=("${table}"); fi
    done
}
decode_set() { # decode_set NAME KIND MODEL DIRECTORY JOBS
    local out
    out="${expdir}/baseline_$1/${inference_tag}/$(basename "$4")"
    possible "$2" "$5" "$4"
    [ "${#jobs[@]}" -gt 0 ] || return 0
    local inputs=() opts=()
    references "$4"
    inputs=("${texts[@]}")
    [ -f "$4/wav.scp" ] && inputs+=("$4/wav.scp")
    [ -d "$3" ] && inputs+=("$3")
    read -r -a opts <<<"${inference_args}"
    step "baseline $1 decode $(basename "$4")" "run stage 2 of the recipe, and 1 here, first" \
        --inputs "${inputs[@]}" --outputs "${out}" -- \
        "${python}" -m espnet_spire.bin.launch --nj "${inference_nj}" \
        --log "${expdir}/log/baseline_$1_$(basename "$4").JOB.log" --cmd "${job_cmd}" -- \
        "${python}" -m espnet_spire.bin.baseline_inference --system "$2" --model "$3" \
        --data_dir "$4" --speech_lang "${speech_lang}" --jobs "${jobs[@]}" --out "${out}" \
        --dtype "${dtype}" --device "${device}" "${opts[@]}"
}
score_set() { # score_set NAME KIND MODEL DIRECTORY JOBS
    local out job outs=() inputs=() opts=() by=()
    out="${expdir}/baseline_$1/${inference_tag}/$(basename "$4")"
    possible "$2" "$5" "$4"
    [ "${#jobs[@]}" -gt 0 ] || return 0
    for job in "${jobs[@]}"; do
        inputs+=("${out}/${job}/text")
        case "${job}" in
        asr.*) outs+=("${out}/${job}/score_wer") ;;
        *) outs+=("${out}/${job}/score_bleu") ;;
        esac
    done
    references "$4"
    read -r -a by <<<"${metrics}"
    read -r -a opts <<<"${score_args}"
    step "baseline $1 score $(basename "$4")" "run stage 2 first" \
        --inputs "${inputs[@]}" "${texts[@]}" --outputs "${outs[@]}" -- \
        "${python}" -m espnet_spire.bin.score --decode_dir "${out}" --data_dir "$4" \
        --speech_lang "${speech_lang}" --metrics "${by[@]}" "${opts[@]}"
}
every_set() { # every_set FUNCTION: for each system and test set
    local entry name kind model set
    for entry in ${systems}; do
        name="${entry%%=*}" kind="${entry#*=}"
        model="${kind#*:}" kind="${kind%%:*}"
        case "${kind}" in
        ctc) [ "${model}" != ctc ] || model="${ctc}/hf" ;;
        whisper | seamless_m4t)
            [ "${model}" != "${kind}" ] || die "--systems: ${entry} lacks its model: ${entry}:MODEL"
            ;;
        *) die "--systems: ${entry} is not NAME=KIND[:MODEL] with ctc, whisper or seamless_m4t" ;;
        esac
        for set in ${test_sets}; do
            "$1" "${name}" "${kind}" "${model}" "${dumpdir}/raw/${set}" "${speech_jobs}"
        done
        for set in ${text_test_sets}; do
            "$1" "${name}" "${kind}" "${model}" "data/${set}" "${text_jobs}"
        done
    done
}

if runs_stage 1 && [[ " ${systems} " == *"=ctc "* ]]; then
    echo "Stage 1: HuBERT+CTC"
    train="${dumpdir}/raw/${train_set}" valid="${dumpdir}/raw/${valid_set}" inputs=()
    for dir in "${train}" "${valid}"; do inputs+=("${dir}/wav.scp" "${dir}/text"); done
    [ -d "${encoder}" ] && inputs+=("${encoder}")
    step "baseline CTC" "run stages 1 and 2 of the recipe first" \
        --inputs "${config}" "${inputs[@]}" --outputs "${ctc}" -- \
        "${python}" -m espnet_spire.bin.train_ctc --config "${config}" --encoder "${encoder}" \
        --train_data_dir "${train}" --valid_data_dir "${valid}" --output_dir "${ctc}" \
        --device "${device}"
fi
if runs_stage 2; then
    echo "Stage 2: decoding with baselines"
    every_set decode_set
fi
if runs_stage 3; then
    echo "Stage 3: scoring of baselines"
    every_set score_set
fi
