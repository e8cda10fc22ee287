#!/usr/bin/env bash
# SPIRE in miniature: spoken by espeak-ng, trained and scored on one CPU, offline, in minutes.
# The models are small stand-ins that local/models.sh trains; everything else is the real road.
set -euo pipefail

./spire.sh \
    --ngpu 0 \
    --nj 2 \
    --inference_nj 2 \
    --train_set "train_cpt train_it train_st" \
    --valid_set dev \
    --test_sets test \
    --encoder exp/standin_hubert_small \
    --encoder_layer 2 \
    --num_clusters 100 \
    --kmeans_hours 0.6 \
    --base_model exp/standin_tower_small \
    --pseudo_set "train_cpt train_it" \
    --pseudo_langs "de fr zh" \
    --pseudo_model exp/standin_tower_small \
    --pseudo_prompt_style plain \
    --pseudo_scorer standin_dual_xent \
    --pseudo_args "--max_new_tokens 64" \
    --cpt_mixture conf/mini_mixture_cpt.yaml \
    --cpt_valid_mixture conf/mini_mixture_cpt_valid.yaml \
    --cpt_config conf/mini_train_cpt.yaml \
    --cpt_tag mini \
    --it_mixture conf/mini_mixture_it.yaml \
    --it_valid_mixture conf/mini_mixture_it_valid.yaml \
    --it_config conf/mini_train_it.yaml \
    --it_tag mini \
    --export_dtype float32 \
    --inference_jobs "asr.en-en mt.en-de mt.en-fr mt.en-zh mt.de-en mt.fr-en mt.zh-en st.en-de st.en-fr st.en-zh st_cascade.en-de st_cascade.en-fr st_cascade.en-zh" \
    --inference_args "--max_new_tokens 64 --batch_tokens 32768" \
    --report_title "SPIRE mini: results" \
    --targets conf/mini_targets.yaml \
    "$@"
