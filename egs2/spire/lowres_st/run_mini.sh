#!/usr/bin/env bash
# The recipe in miniature: German, which the small base model has not read, spoken by espeak-ng;
# trained and scored on one CPU, offline, in minutes. One system; ./run_mini_all.sh makes all four.
set -euo pipefail

./spire.sh \
    --speech_lang de \
    --target_lang en \
    --ngpu 0 \
    --nj 2 \
    --inference_nj 2 \
    --local_data_opts "--mini true --speech_lang de --num_train 1000 --cpt_percent 55 --it_percent 5 --st_percent 40" \
    --local_models_opts "--mini true --tower_langs en,fr,zh" \
    --train_set "train_cpt train_it train_st" \
    --valid_set dev \
    --test_sets test \
    --encoder exp/standin_hubert_small \
    --encoder_layer 2 \
    --num_clusters 100 \
    --kmeans_hours 0.4 \
    --base_model exp/standin_tower_small \
    --skip_stages "6" \
    --cpt_mixture conf/lowres_mini_mixture_cpt.yaml \
    --cpt_valid_mixture conf/lowres_mixture_cpt_valid.yaml \
    --cpt_config conf/lowres_mini_train_cpt.yaml \
    --cpt_tag mini \
    --it_mixture conf/lowres_mini_mixture_it.yaml \
    --it_valid_mixture conf/lowres_mixture_it_valid.yaml \
    --it_config conf/lowres_mini_train_it.yaml \
    --it_tag mini \
    --export_dtype float32 \
    --inference_jobs "asr.{speech_lang}-{speech_lang} mt.{speech_lang}-{target_lang} st.{speech_lang}-{target_lang} st_cascade.{speech_lang}-{target_lang}" \
    --inference_args "--max_new_tokens 64" \
    --report_title "Low-resource speech translation in miniature: results" \
    "$@"
