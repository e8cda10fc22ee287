#!/usr/bin/env bash
# SpireBase, SpireFull and the three ablations at the paper's size. Say in db.sh where the corpora
# are; --dry_run true prints all there is to do, and what it will cost, before anything is done.
#   ./run.sh --dry_run true
#   ./run.sh --ngpu 8                               # SpireFull
#   ./run.sh --variant towerfull --stage 9 --ngpu 8 # an ablation, after the same stages 1 to 7
#   ./run.sh --corpora "gigaspeech fleurs flores200 towerblocks"
set -euo pipefail

langs="de fr nl it es pt ko ru zh"
speech_jobs="asr.en-en" text_jobs=""
for lang in ${langs}; do
    speech_jobs+=" st.en-${lang} st_cascade.en-${lang}"
    text_jobs+=" mt.en-${lang} mt.${lang}-en"
done
for lang in de ru zh; do text_jobs+=" ape.en-${lang} ape.${lang}-en"; done
for lang in de en es fr it pt zh; do text_jobs+=" ner.${lang}-${lang}"; done

./spire.sh \
    --ngpu 8 \
    --nj 16 \
    --inference_nj 8 \
    --gpu_inference true \
    --recipe conf/full_corpora.yaml \
    --corpora all \
    --max_wav_duration 60 \
    --encoder facebook/hubert-large-ll60k \
    --encoder_layer 22 \
    --num_clusters 5000 \
    --kmeans_hours 720 \
    --base_model Unbabel/TowerBase-7B-v0.1 \
    --pseudo_langs "${langs}" \
    --pseudo_model Unbabel/TowerInstruct-13B-v0.1 \
    --pseudo_prompt_style chatml \
    --pseudo_max_utterances 300000 \
    --pseudo_scorer cometkiwi \
    --pseudo_threshold 0.85 \
    --pseudo_args "--dtype bfloat16" \
    --cpt_mixture conf/mixture_cpt.yaml \
    --cpt_valid_mixture conf/mixture_cpt_valid.yaml \
    --cpt_config conf/train_cpt.yaml \
    --it_mixture conf/mixture_it.yaml \
    --it_valid_mixture conf/mixture_it_valid.yaml \
    --it_config conf/train_it.yaml \
    --deepspeed_config conf/ds_zero2.json \
    --inference_jobs "${speech_jobs}" \
    --text_inference_jobs "${text_jobs}" \
    --inference_args "--max_new_tokens 256 --dtype bfloat16" \
    --report_title "SPIRE: results" \
    "$@"
