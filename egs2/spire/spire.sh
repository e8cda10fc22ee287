#!/usr/bin/env bash
# The stages of SPIRE, shared by all recipes. Called by a recipe's run.sh from its directory.
# Options become variables in a loop over their names, which shellcheck cannot see.
# shellcheck disable=SC2154
set -euo pipefail

# name=default|what it is
declare -A value=() help=() chosen=()
names=()
option() {
    local spec="$1"
    local name="${spec%%=*}" rest="${spec#*=}"
    names+=("${name}")
    value[${name}]="${rest%%|*}"
    help[${name}]="${rest#*|}"
}
option "stage=1|first stage to run"
option "stop_stage=13|last stage to run"
option "skip_stages=|stages to leave out, e.g. \"6 7\""
option "skip_data_prep=false|leave out stages 1, 2, 4, 6, 7 and 9"
option "skip_train=false|leave out stages 3, 5, 8, 10 and 11"
option "skip_eval=false|leave out stages 12 and 13"
option "ngpu=1|GPUs on each machine, 0 for the CPU"
option "nj=4|processes for data preparation and units"
option "inference_nj=4|processes for pseudo-labels and decoding"
option "gpu_inference=false|whether decoding and pseudo-labelling use a GPU"
option "cmd_backend=${cmd_backend:-local}|who starts the jobs of stages 3, 4, 6 and 12: local, slurm or kaldi, see cmd.sh"
option "dumpdir=dump|formatted audio, units, examples"
option "expdir=exp|models and results"
option "python=python3|the Python to run"
option "dry_run=false|print each step with its inputs and outputs, and estimates; run none"
option "recipe=|YAML of corpora, such as conf/full_corpora.yaml: it sets train_set and its like"
option "corpora=all|those of the recipe to use; budgets of mixtures are rescaled"
option "variant=spirefull|spirefull, towerfull, spirenoblocks or spirenopseudo"
option "train_set=train|training sets, one or several"
option "valid_set=dev|validation set"
option "test_sets=test|test sets"
option "text_test_sets=|test sets without audio, data/<set>/text.tc.<lang>"
option "speech_lang=en|language that is spoken"
option "target_lang=|language that speech is translated into, in recipes for one pair of languages"
option "cpt_first=true|false: IT starts from the extended model, spirefull becomes towerfull"
option "distill=false|true: in IT speech translation learns from MT too (variant <variant>_kd)"
option "local_data_opts=|passed on to local/data.sh"
option "local_models_opts=|passed on to local/models.sh, which makes models available"
option "audio_format=flac|of formatted audio: flac or wav"
option "min_wav_duration=0.1|seconds; shorter training utterances are left out"
option "max_wav_duration=60|seconds; longer training utterances are left out"
option "max_rejected=0.001|share of unusable utterances that is tolerated in stages 2, 3 and 4"
option "encoder=facebook/hubert-large-ll60k|speech encoder: directory, hub name, or mfcc"
option "encoder_layer=22|transformer block whose output is clustered"
option "encoder_args=|further options of the encoder in stages 3 and 4, e.g. \"--pool_frames 2\""
option "num_clusters=5000|K"
option "kmeans_set=|sets to learn k-means on, the training sets by default"
option "kmeans_hours=720|hours of audio to learn k-means on"
option "kmeans_max_per_speaker=|utterances of a speaker at most: a number, or one for each set"
option "kmeans_passes=10|passes of k-means over the frames at most"
option "kmeans_args=|further options of learn_kmeans, e.g. \"--max_gib 16\""
option "units_dtype=float32|of stages 3 and 4: float32 is exact, bfloat16 faster"
option "units_args=|further options of extract_units, e.g. \"--batch_seconds 400\""
option "unit_bpe=0|vocabulary size of subwords of units (more than K), 0 for units themselves"
option "unit_bpe_args=|further options of learn_unit_bpe, e.g. \"--max_utterances 50000\""
option "base_model=Unbabel/TowerBase-7B-v0.1|text LLM to extend: directory or hub name"
option "seed=0|of k-means and of new embedding rows"
option "pseudo_set=|sets to translate, the training sets by default"
option "pseudo_langs=de fr nl it es pt ko ru zh|target languages of pseudo-labels"
option "pseudo_model=Unbabel/TowerInstruct-13B-v0.1|LLM that translates the transcripts"
option "pseudo_prompt_style=chatml|chatml for instruction-tuned LLMs, plain for base LLMs"
option "pseudo_max_utterances=300000|of each set, drawn at random; empty for all"
option "pseudo_server=|URLs of OpenAI-compatible servers that translate, e.g. \"http://host:8000/v1\""
option "pseudo_server_model=|name of the LLM there, that of --pseudo_model by default"
option "pseudo_scorer=cometkiwi|quality score of translations: cometkiwi (make comet-env) or standin_dual_xent"
option "pseudo_threshold=0.85|translations below are rejected"
option "pseudo_args=|further options of pseudo_label"
option "cpt_mixture=conf/mixture_cpt.yaml|what CPT is trained on"
option "cpt_valid_mixture=|and validated on"
option "cpt_config=conf/train_cpt.yaml|training options of CPT"
option "cpt_args=|further options of CPT, e.g. \"--num_epochs 2\""
option "cpt_tag=|suffix of CPT's directory, the config's name by default"
option "it_mixture=conf/mixture_it.yaml|what IT is trained on"
option "it_valid_mixture=|and validated on"
option "it_config=conf/train_it.yaml|training options of IT"
option "it_args=|further options of IT"
option "it_tag=|suffix of IT's directory, the config's name by default"
option "deepspeed_config=conf/ds_zero2.json|ZeRO stage and off-loading"
option "train_launcher=|words that start spire_train in stages 8 and 10; launch_ranks for --ngpu above 1"
option "export_checkpoint=last|what is exported: last, best (of validation) or step_N"
option "export_dtype=bfloat16|of exported weights"
option "inference_jobs=asr.en-en|what is decoded of test sets that can be: TASK.SRC-TGT …"
option "text_inference_jobs=|the same for test sets without audio"
option "inference_args=--max_new_tokens 256|options of spire_inference"
option "inference_tag=decode_greedy|name of the decoding directory"
option "metrics=default|what to score by; default is to be among them, e.g. \"default ter comet22\""
option "score_args=|further options of score, e.g. \"--comet_device cuda --spm_model FILE\""
option "report_title=SPIRE|title of RESULTS.md and RESULTS.html"
option "table_args=|further options of show_tables, e.g. \"Whisper-base=DIR --examples 20\""
option "targets=|YAML with figures that are to be reached, shown in RESULTS.md"

die() {
    echo "error: $*" >&2
    exit 1
}

usage() {
    echo "Usage: $0 [--option value] …   (- and _ in options are the same)"
    local name
    for name in "${names[@]}"; do
        printf '  --%-24s %s [%s]\n' "${name}" "${help[${name}]}" "${value[${name}]}"
    done
}

while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help)
        usage
        exit 0
        ;;
    --*)
        name="${1#--}"
        given="${name%%=*}"
        option_name="${given//-/_}"
        [ -n "${value[${option_name}]+known}" ] ||
            die "unknown option --${given} (--help lists all options)"
        chosen[${option_name}]=true
        if [ "${given}" != "${name}" ]; then
            value[${option_name}]="${name#*=}"
            shift
        else
            [ $# -ge 2 ] || die "option --${given} needs a value"
            value[${option_name}]="$2"
            shift 2
        fi
        ;;
    *) die "argument '$1' is not an option (--help lists all options)" ;;
    esac
done
for name in "${names[@]}"; do
    declare "${name}=${value[${name}]}"
done

for name in stage stop_stage ngpu nj inference_nj encoder_layer num_clusters unit_bpe; do
    [[ "${!name}" =~ ^[0-9]+$ ]] || die "--${name} ${!name}: not a whole number"
done
for name in nj inference_nj; do
    [ "${!name}" -ge 1 ] || die "--${name} ${!name}: at least one process is needed"
done
for name in skip_data_prep skip_train skip_eval gpu_inference dry_run cpt_first distill; do
    [[ "${!name}" =~ ^(true|false)$ ]] || die "--${name} ${!name}: choose true or false"
done
case "${variant}" in
spirefull | towerfull | spirenoblocks | spirenopseudo) ;;
*) die "--variant ${variant}: choose spirefull, towerfull, spirenoblocks or spirenopseudo" ;;
esac
[ -f ./path.sh ] || die "no path.sh here: start this from a recipe directory, such as egs2/spire/mini"
# shellcheck disable=SC1091
. ./path.sh
train_cmd="" cuda_cmd="" decode_cmd=""
# shellcheck disable=SC1091
[ ! -f ./cmd.sh ] || . ./cmd.sh
command -v "${python}" >/dev/null || die "--python ${python} is not installed"
export SPIRE_PYTHON="${python}" # for local/data.sh

if [ -n "${recipe}" ]; then
    mixtures_dir="${dumpdir}/mixtures"
    if ${dry_run}; then
        mixtures_dir="$(mktemp -d)"
        trap 'rm -rf "${mixtures_dir}"' EXIT
    fi
    mixtures=()
    for name in cpt_mixture cpt_valid_mixture it_mixture it_valid_mixture; do
        mixtures+=("${name}=${!name}")
    done
    follows="$("${python}" -m espnet_spire.bin.recipe_settings --recipe "${recipe}" \
        --corpora "${corpora}" --mixtures "${mixtures[@]}" --out "${mixtures_dir}")"
    while IFS="=" read -r name words; do
        # what the user says goes before what the recipe says; mixtures were given to it
        if [[ "${name}" == *_mixture || -z "${chosen[${name}]+given}" ]]; then
            declare "${name}=${words}"
        fi
    done <<<"${follows}"
    [ -n "${cpt_mixture}" ] || [ "${variant}" = towerfull ] ||
        die "--corpora ${corpora}: continued pre-training has none of its corpora; add one, or choose --variant towerfull"
    [ -n "${it_mixture}" ] ||
        die "--corpora ${corpora}: instruction tuning has none of its corpora; add one"
fi

if ! ${cpt_first}; then
    [[ "${variant}" =~ ^(spire|tower)full$ ]] || die "--cpt_first false: not for --variant ${variant}"
    variant=towerfull
fi
without_cpt=false
[ "${variant}" = towerfull ] && without_cpt=true
${distill} && variant+=_kd
mixture_words=("speech_lang=${speech_lang}") # {speech_lang} in mixtures and jobs
[ -n "${target_lang}" ] && mixture_words+=("target_lang=${target_lang}")
for word in "${mixture_words[@]}"; do
    inference_jobs="${inference_jobs//"{${word%%=*}}"/"${word#*=}"}"
done
skip=" ${skip_stages} "
${skip_data_prep} && skip+="1 2 4 6 7 9 "
${skip_train} && skip+="3 5 8 10 11 "
${skip_eval} && skip+="12 13 "
trains() { runs_stage 8 || runs_stage 10 || runs_stage 11; }
runs_stage() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ] && [[ "${skip}" != *" $1 "* ]]; }

packages=()
trains && packages=(--training)
"${python}" -m espnet_spire.bin.check_environment "${packages[@]}"
if [ -z "${train_launcher}" ] && [ "${ngpu}" -gt 1 ]; then
    train_launcher="${python} -m espnet_spire.bin.launch_ranks --nproc ${ngpu} --"
fi
rank_gpus=$((ngpu > 0)) # each rank has one
if ${dry_run} && [ -n "${recipe}" ]; then
    set_rules=() option_name=""
    for word in ${local_data_opts}; do
        if [[ "${word}" == --* ]]; then
            option_name="${word}"
        elif [[ "${option_name}" == --set[_-]rules ]]; then
            set_rules+=("${word}")
        fi
    done
    read -r -a langs <<<"${pseudo_langs}"
    read -r -a speech_jobs <<<"${inference_jobs}"
    read -r -a text_jobs <<<"${text_inference_jobs}"
    "${python}" -m espnet_spire.bin.estimate --recipe "${recipe}" --corpora "${corpora}" \
        --set_rules "${set_rules[@]}" --stage "${stage}" --stop_stage "${stop_stage}" \
        --encoder "${encoder}" --layer "${encoder_layer}" --kmeans_hours "${kmeans_hours}" \
        --base_model "${base_model}" --pseudo_model "${pseudo_model}" \
        --pseudo_langs "${langs[@]}" --pseudo_max_utterances "${pseudo_max_utterances}" \
        --cpt_mixture "${cpt_mixture}" --cpt_config "${cpt_config}" --it_config "${it_config}" \
        --jobs "${speech_jobs[@]}" --text_jobs "${text_jobs[@]}" --variant "${variant}" --gpus "${ngpu}"
    echo
fi

in_place="" launcher=""
# step NAME HINT INPUT… makes OUTPUT… -- COMMAND…
step() {
    local name="$1" hint="$2"
    shift 2
    local inputs=() outputs=()
    while [ "$1" != makes ]; do
        inputs+=("$1")
        shift
    done
    shift
    while [ "$1" != "--" ]; do
        outputs+=("$1")
        shift
    done
    shift
    if ${dry_run}; then
        printf '  %s\n    reads  %s\n    makes  %s\n    runs  ' \
            "${name}" "${inputs[*]:-nothing}" "${outputs[*]}"
        # shellcheck disable=SC2086
        printf ' %q' ${launcher} "$@"
        echo
        return
    fi
    "${python}" -m espnet_spire.bin.run_step --name "${name}" --expdir "${expdir}" --hint "${hint}" \
        ${in_place:+--in_place} --launcher "${launcher}" --inputs "${inputs[@]}" \
        --outputs "${outputs[@]}" -- "$@"
}
always() { # always NAME COMMAND…: what knows itself whether there is something to do
    if ${dry_run}; then
        printf '  %s\n    runs  ' "$1"
        printf ' %q' "${@:2}"
        echo
    else
        "${@:2}"
    fi
}
sharded() { # sharded NJ LOG MODULE ARGUMENT…
    local jobs="$1" log="$2" module="$3"
    shift 3
    local job_cmd="${units_cmd}"
    case "${module}" in pseudo_label | spire_inference) job_cmd="${inference_cmd}" ;; esac
    launched=("${python}" -m espnet_spire.bin.launch --nj "${jobs}" --log "${log}"
        --cmd "${job_cmd}" --
        "${python}" -m "espnet_spire.bin.${module}" "$@")
}
title() { echo "Stage $1: $2"; }

kmeans_set="${kmeans_set:-${train_set}}"
# a recipe's corpora may have none to translate
[ -n "${recipe}" ] || pseudo_set="${pseudo_set:-${train_set}}"
device=cpu
if [ "${ngpu}" -gt 0 ]; then device=cuda; else export DS_ACCELERATOR=cpu; fi
units_jobs="${nj}" # one process a GPU
[ "${ngpu}" -gt 0 ] && units_jobs="${ngpu}"
units_cmd="${train_cmd}"
[ "${ngpu}" -gt 0 ] && units_cmd="${cuda_cmd}"
inference_device=cpu inference_cmd="${decode_cmd}"
${gpu_inference} && inference_device=cuda inference_cmd="${cuda_cmd}"
encoder_name="$(basename "${encoder}")"
base_name="$(basename "${base_model}")"
codebook="${expdir}/kmeans/${encoder_name}_${encoder_layer}_${num_clusters}clusters"
plain_units_name="text.rm.${encoder_name}_${encoder_layer}_km${num_clusters}"
# What the stages after 4 read, how many words it has, and what says so.
units_name="${plain_units_name}"
extended="${expdir}/${base_name}_km${num_clusters}"
vocabulary=(--num_units "${num_clusters}" --codebook "${codebook}")
units_source=("${codebook}")
if [ "${unit_bpe}" -gt 0 ]; then
    [ "${unit_bpe}" -gt "${num_clusters}" ] ||
        die "--unit_bpe ${unit_bpe}: must be more than --num_clusters ${num_clusters}, or 0"
    unit_bpe_dir="${codebook}_bpe${unit_bpe}"
    units_name+="_bpe${unit_bpe}"
    extended+="_bpe${unit_bpe}"
    vocabulary=(--num_units "${unit_bpe}" --codebook "${codebook}" --unit_bpe "${unit_bpe_dir}")
    units_source+=("${unit_bpe_dir}")
fi
config_tag() { basename "$1" .yaml; }
cpt_dir="${expdir}/spire_cpt_${cpt_tag:-$(config_tag "${cpt_config}")}"
it_dir="${expdir}/spire_it_${variant}_${it_tag:-$(config_tag "${it_config}")}"
it_start="${cpt_dir}/hf"
${without_cpt} && it_start="${extended}"
all_sets="${train_set} ${valid_set} ${test_sets}"
read -r -a all_sets_array <<<"${all_sets}"
each() { # each PREFIX SUFFIX NAME… -> array "list"
    local prefix="$1" suffix="$2" entry
    shift 2
    list=()
    for entry in "$@"; do list+=("${prefix}${entry}${suffix}"); done
}

if runs_stage 1; then
    title 1 "data preparation"
    [ -x local/data.sh ] || die "local/data.sh is missing or not executable: it prepares data/<set>"
    read -r -a opts <<<"${local_data_opts}"
    if [ -n "${recipe}" ]; then
        always "1 data" local/data.sh --expdir "${expdir}" --nj "${nj}" --recipe "${recipe}" \
            --corpora "${corpora}" "${opts[@]}"
    else
        each data/ /wav.scp "${all_sets_array[@]}"
        outs=("${list[@]}")
        read -r -a sets <<<"${text_test_sets}"
        each data/ "" "${sets[@]}"
        in_place=true step "1 data" "" makes "${outs[@]}" "${list[@]}" -- \
            local/data.sh --nj "${nj}" "${opts[@]}"
    fi
fi

if runs_stage 2; then
    title 2 "format audio to 16 kHz mono"
    tables=()
    for set in ${all_sets}; do
        tables+=("data/${set}/wav.scp" "data/${set}/utt2spk")
        # ESPnet's recipes of translation may have the transcripts as text.tc.<lang> alone
        [ -f "data/${set}/text.tc.${speech_lang}" ] || tables+=("data/${set}/text")
        for table in "data/${set}"/{segments,reco2file_and_channel,text.tc.*}; do
            [ -f "${table}" ] && tables+=("${table}")
        done
    done
    read -r -a sets <<<"${test_sets}"
    each data/ "" "${sets[@]}"
    tests=("${list[@]}")
    each data/ "" "${all_sets_array[@]}"
    dirs=("${list[@]}")
    each "${dumpdir}/raw/" "" "${all_sets_array[@]}"
    outs=("${list[@]}")
    each "${dumpdir}/raw/" /wav.scp "${all_sets_array[@]}"
    in_place=true step "2 format" "run stage 1 (local/data.sh) first" "${tables[@]}" makes "${list[@]}" -- \
        "${python}" -m espnet_spire.bin.format_data --data_dir "${dirs[@]}" --out "${outs[@]}" \
        --unfiltered "${tests[@]}" --src_lang "${speech_lang}" --min_wav_duration "${min_wav_duration}" \
        --max_wav_duration "${max_wav_duration}" --audio_format "${audio_format}" --nj "${nj}" \
        --max_rejected "${max_rejected}"
fi

if runs_stage 3; then
    title 3 "k-means"
    if [ -x local/models.sh ]; then
        read -r -a opts <<<"${local_models_opts}"
        always "3 models" local/models.sh --expdir "${expdir}" --dumpdir "${dumpdir}" \
            --train_set "${train_set}" --python "${python}" --encoder "${encoder}" \
            --base_model "${base_model}" "${opts[@]}"
    fi
    read -r -a sets <<<"${kmeans_set}"
    each "${dumpdir}/raw/" "" "${sets[@]}"
    dirs=("${list[@]}")
    each "${dumpdir}/raw/" /wav.scp "${sets[@]}"
    local_encoder=()
    [ -d "${encoder}" ] && local_encoder=("${encoder}")
    read -r -a opts <<<"${encoder_args} ${kmeans_args}"
    read -r -a speakers <<<"${kmeans_max_per_speaker}"
    sharded "${units_jobs}" "${expdir}/log/kmeans.JOB.log" learn_kmeans --data_dir "${dirs[@]}" \
        --encoder "${encoder}" --layer "${encoder_layer}" --num_clusters "${num_clusters}" \
        --hours "${kmeans_hours}" --passes "${kmeans_passes}" --seed "${seed}" --out "${codebook}" \
        ${speakers:+--max_per_speaker "${speakers[@]}"} --max_rejected "${max_rejected}" \
        --dtype "${units_dtype}" --device "${device}" "${opts[@]}"
    step "3 k-means" "run stage 2 first" "${list[@]}" "${local_encoder[@]}" makes "${codebook}" -- \
        "${launched[@]}"
fi

if runs_stage 4; then
    title 4 "units"
    each "${dumpdir}/raw/" "" "${all_sets_array[@]}"
    dirs=("${list[@]}")
    each "${dumpdir}/raw/" "/${plain_units_name}" "${all_sets_array[@]}"
    outs=("${list[@]}")
    each "" .rejected.tsv "${outs[@]}"
    rejected=("${list[@]}")
    each "${dumpdir}/raw/" /wav.scp "${all_sets_array[@]}"
    read -r -a opts <<<"${encoder_args} ${units_args}"
    sharded "${units_jobs}" "${expdir}/log/units.JOB.log" extract_units --data_dir "${dirs[@]}" \
        --out "${outs[@]}" --encoder "${encoder}" --layer "${encoder_layer}" \
        --codebook "${codebook}" --max_rejected "${max_rejected}" --dtype "${units_dtype}" \
        --device "${device}" "${opts[@]}"
    step "4 units" "run stages 2 and 3 first" "${codebook}" "${list[@]}" makes "${outs[@]}" \
        "${rejected[@]}" -- "${launched[@]}"
    step "4 plot" "" "${codebook}" "${outs[@]}" makes "${codebook}.png" -- \
        "${python}" -m espnet_spire.bin.plot_units --codebook "${codebook}" --units "${outs[@]}" \
        --out "${codebook}.png"
    unit_stats="${expdir}/unit_stats_${plain_units_name#text.}"
    step "4 unit statistics" "" "${codebook}" "${outs[@]}" makes "${unit_stats}" -- \
        "${python}" -m espnet_spire.bin.unit_stats --data_dir "${dirs[@]}" --units "${outs[@]}" \
        --codebook "${codebook}" --out "${unit_stats}"
    if [ "${unit_bpe}" -gt 0 ]; then
        read -r -a sets <<<"${train_set}"
        each "${dumpdir}/raw/" "/${plain_units_name}" "${sets[@]}"
        read -r -a opts <<<"${unit_bpe_args}"
        step "4 learn unit BPE" "" "${codebook}" "${list[@]}" makes "${unit_bpe_dir}" -- \
            "${python}" -m espnet_spire.bin.learn_unit_bpe --units "${list[@]}" \
            --codebook "${codebook}" --vocab_size "${unit_bpe}" --seed "${seed}" \
            --out "${unit_bpe_dir}" "${opts[@]}"
        each "${dumpdir}/raw/" "/${units_name}" "${all_sets_array[@]}"
        bpe_outs=("${list[@]}")
        each "" .rejected.tsv "${bpe_outs[@]}"
        step "4 apply unit BPE" "" "${unit_bpe_dir}" "${outs[@]}" "${rejected[@]}" makes \
            "${bpe_outs[@]}" "${list[@]}" -- \
            "${python}" -m espnet_spire.bin.apply_unit_bpe --units "${outs[@]}" \
            --model "${unit_bpe_dir}" --out "${bpe_outs[@]}"
    fi
fi

if runs_stage 5; then
    title 5 "extend vocabulary"
    local_base=()
    [ -d "${base_model}" ] && local_base=("${base_model}")
    hint="run stage 3 first"
    [ "${unit_bpe}" -gt 0 ] && hint="run stages 3 and 4 first"
    step "5 vocabulary" "${hint}" "${units_source[@]}" "${local_base[@]}" makes "${extended}" -- \
        "${python}" -m espnet_spire.bin.extend_vocabulary --base "${base_model}" \
        "${vocabulary[@]}" --seed "${seed}" --out "${extended}"
fi

if runs_stage 6 && [ -z "${pseudo_set}" ]; then
    title 6 "pseudo-labels: no set to translate"
elif runs_stage 6; then
    title 6 "pseudo-labels"
    read -r -a sets <<<"${pseudo_set}"
    read -r -a langs <<<"${pseudo_langs}"
    each "${dumpdir}/raw/" "" "${sets[@]}"
    dirs=("${list[@]}")
    outs=()
    for set in "${sets[@]}"; do
        for lang in "${langs[@]}"; do outs+=("${dumpdir}/pseudo/${set}.${lang}"); done
    done
    each "${dumpdir}/pseudo/" "" report.json report.md scores.png
    outs+=("${list[@]}")
    each "${dumpdir}/raw/" /text "${sets[@]}"
    local_model=()
    [ -d "${pseudo_model}" ] && local_model=("${pseudo_model}")
    read -r -a servers <<<"${pseudo_server}"
    read -r -a opts <<<"${pseudo_args}"
    sharded "${inference_nj}" "${expdir}/log/pseudo.JOB.log" pseudo_label --data_dir "${dirs[@]}" \
        --model "${pseudo_model}" --prompt_style "${pseudo_prompt_style}" \
        --src_lang "${speech_lang}" --tgt_langs "${langs[@]}" --out "${dumpdir}/pseudo" \
        --scorer "${pseudo_scorer}" --threshold "${pseudo_threshold}" --seed "${seed}" \
        ${pseudo_max_utterances:+--max_utterances "${pseudo_max_utterances}"} \
        ${servers:+--server "${servers[@]}"} \
        ${pseudo_server_model:+--server_model "${pseudo_server_model}"} \
        --device "${inference_device}" "${opts[@]}"
    step "6 pseudo-labels" "run stages 2 and 3 first" "${list[@]}" "${local_model[@]}" makes \
        "${outs[@]}" -- "${launched[@]}"
fi

examples() { # examples STEP MIXTURE OUT
    local files sources=()
    files="$("${python}" -m espnet_spire.bin.mixture_inputs --mixture "$2" \
        --units_name "${units_name}" --variant "${variant}" --dumpdir "${dumpdir}" \
        --words "${mixture_words[@]}")"
    mapfile -t sources <<<"${files}"
    step "$1" "run the stages before this one" "$2" "${extended}/tokenizer.json" \
        "${extended}/spire.json" "${sources[@]}" makes "$3" -- \
        "${python}" -m espnet_spire.bin.make_examples --mixture "$2" --model "${extended}" \
        --units_name "${units_name}" --variant "${variant}" --dumpdir "${dumpdir}" \
        --words "${mixture_words[@]}" --nj "${nj}" --out "$3"
}
# train STEP CONFIG ARGUMENTS MODEL EXAMPLES VALID OUT
train() {
    local valid=() arguments=()
    [ -n "$6" ] && valid=("$6")
    read -r -a arguments <<<"$3"
    # The trainer itself knows with what it can go on.
    in_place=true launcher="${train_launcher}" step "$1" "run the stages before this one" \
        "$2" "${deepspeed_config}" "$4" "$5" "${valid[@]}" \
        makes "$7" -- "${python}" -m espnet_spire.bin.spire_train --config "$2" \
        --deepspeed_config "${deepspeed_config}" --ngpu "${rank_gpus}" --model "$4" \
        --train_examples "$5" ${6:+--valid_examples "$6"} --output_dir "$7" \
        --restart_if_changed true "${arguments[@]}"
}
which_checkpoint=() # by default the last, of a finished training only
[ "${export_checkpoint}" != last ] && which_checkpoint=(--checkpoint "${export_checkpoint}")
cpt_valid="" it_valid=""
[ -n "${cpt_valid_mixture}" ] && cpt_valid="${dumpdir}/cpt_valid"
[ -n "${it_valid_mixture}" ] && it_valid="${dumpdir}/it_valid"

# TowerFull is instruction tuning without continued pre-training.
if ! ${without_cpt}; then
    if runs_stage 7; then
        title 7 "examples for continued pre-training"
        variant="" examples "7 examples" "${cpt_mixture}" "${dumpdir}/cpt"
        [ -z "${cpt_valid}" ] ||
            variant="" examples "7 validation" "${cpt_valid_mixture}" "${cpt_valid}"
    fi
    if runs_stage 8; then
        title 8 "continued pre-training"
        train "8 CPT" "${cpt_config}" "${cpt_args}" "${extended}" "${dumpdir}/cpt" \
            "${cpt_valid}" "${cpt_dir}"
        step "8 export" "run stage 8 first" "${cpt_dir}/checkpoint.json" makes "${cpt_dir}/hf" -- \
            "${python}" -m espnet_spire.bin.export --train_dir "${cpt_dir}" \
            "${which_checkpoint[@]}" --start_model "${extended}" \
            --dtype "${export_dtype}" --out "${cpt_dir}/hf"
    fi
fi

if runs_stage 9; then
    title 9 "examples for instruction tuning (${variant})"
    examples "9 examples ${variant}" "${it_mixture}" "${dumpdir}/it_${variant}"
    [ -z "${it_valid}" ] || variant="" examples "9 validation" "${it_valid_mixture}" "${it_valid}"
fi

if runs_stage 10; then
    title 10 "instruction tuning (${variant})"
    train "10 IT ${variant}" "${it_config}" "${it_args}" "${it_start}" "${dumpdir}/it_${variant}" \
        "${it_valid}" "${it_dir}"
fi

if runs_stage 11; then
    title 11 "export (${variant})"
    step "11 export ${variant}" "run stage 10 first" "${it_dir}/checkpoint.json" "${it_start}" makes \
        "${it_dir}/hf" -- "${python}" -m espnet_spire.bin.export --train_dir "${it_dir}" \
        "${which_checkpoint[@]}" --start_model "${it_start}" --instruct \
        --dtype "${export_dtype}" --out "${it_dir}/hf"
fi

references() { # references DIRECTORY -> array "texts": what is translated and scored against
    local table
    texts=()
    for table in "$1"/text "$1"/text.{tc,mt,input,tokens,tags}.*; do
        if [ -f "${table}" ]; then texts+=("${table}"); fi
    done
}
# possible JOBS DIRECTORY -> array "jobs": those that the set has sources and references for
possible() {
    read -r -a jobs <<<"$1"
    if [ "${#jobs[@]}" -gt 0 ] && [ -d "$2" ]; then
        local found
        found="$("${python}" -m espnet_spire.bin.possible_jobs --data_dir "$2" \
            --speech_lang "${speech_lang}" --jobs "${jobs[@]}")"
        mapfile -t jobs < <(printf '%s' "${found}")
    fi
    [ "${#jobs[@]}" -gt 0 ] || echo "  $(basename "$2"): none of the jobs can be decoded"
}
decode_set() { # decode_set SET DIRECTORY JOBS UNITS…
    local dir="${it_dir}/${inference_tag}/$1" data="$2" opts=() units=()
    possible "$3" "${data}"
    [ "${#jobs[@]}" -gt 0 ] || return 0
    [ $# -lt 4 ] || units=(--units "$4")
    read -r -a opts <<<"${inference_args}"
    sharded "${inference_nj}" "${expdir}/log/decode_${variant}_$1.JOB.log" \
        spire_inference --model "${it_dir}/hf" --data_dir "${data}" "${units[@]}" \
        --speech_lang "${speech_lang}" --jobs "${jobs[@]}" \
        --out "${dir}" --device "${inference_device}" "${opts[@]}"
    references "${data}"
    step "12 decode ${variant} $1" "run stages 4 and 11 first" "${it_dir}/hf" \
        "${texts[@]}" "${@:4}" makes "${dir}" -- "${launched[@]}"
}
score_set() { # score_set SET DIRECTORY JOBS
    local dir="${it_dir}/${inference_tag}/$1" data="$2" job outs=() opts=() by=()
    possible "$3" "${data}"
    [ "${#jobs[@]}" -gt 0 ] || return 0
    for job in "${jobs[@]}"; do
        case "${job}" in
        asr.*) outs+=("${dir}/${job}/score_wer") ;;
        ner.*) outs+=("${dir}/${job}/score_f1") ;;
        *) outs+=("${dir}/${job}/score_bleu") ;;
        esac
    done
    read -r -a by <<<"${metrics}"
    read -r -a opts <<<"${score_args}"
    each "${dir}/" /text "${jobs[@]}"
    references "${data}"
    step "13 score ${variant} $1" "run stage 12 first" "${list[@]}" \
        "${texts[@]}" makes "${outs[@]}" -- \
        "${python}" -m espnet_spire.bin.score --decode_dir "${dir}" \
        --data_dir "${data}" --speech_lang "${speech_lang}" --metrics "${by[@]}" "${opts[@]}"
}
if runs_stage 12; then
    title 12 "decoding (${variant})"
    for set in ${test_sets}; do
        raw="${dumpdir}/raw/${set}"
        decode_set "${set}" "${raw}" "${inference_jobs}" "${raw}/${units_name}"
    done
    for set in ${text_test_sets}; do
        decode_set "${set}" "data/${set}" "${text_inference_jobs}"
    done
fi

if runs_stage 13; then
    title 13 "scoring (${variant})"
    for set in ${test_sets}; do
        score_set "${set}" "${dumpdir}/raw/${set}" "${inference_jobs}"
    done
    for set in ${text_test_sets}; do
        score_set "${set}" "data/${set}" "${text_inference_jobs}"
    done
    always "13 report" "${python}" -m espnet_spire.bin.report --expdir "${expdir}" --out RESULTS.md \
        --results_json "${expdir}/results.json" --title "${report_title}" \
        --speech_lang "${speech_lang}" ${targets:+--targets "${targets}"}
    read -r -a opts <<<"${table_args}"
    always "13 tables" "${python}" -m espnet_spire.bin.show_tables "${expdir}" "${opts[@]}" \
        --html RESULTS.html \
        --markdown "${expdir}/tables.md" --latex "${expdir}/tables.tex" --title "${report_title}" \
        --speech_lang "${speech_lang}" --raw_dir "${dumpdir}/raw" --units_name "${units_name}"
fi
