#!/usr/bin/env bash
# Speech translation of a low-resource language, in the manner of the GMU systems (IWSLT 2025) on
# SPIRE's stages; see README.md. Bemba to English here; another pair:
#   ./run.sh --speech_lang aeb --target_lang en --local_data_opts "--source /path/to/data"
set -euo pipefail

./spire.sh \
    --speech_lang bem \
    --target_lang en \
    --train_set train \
    --valid_set dev \
    --test_sets test \
    --max_wav_duration 30 \
    --encoder utter-project/mHuBERT-147 \
    --encoder_layer 9 \
    --num_clusters 1000 \
    --kmeans_hours 100 \
    --base_model utter-project/EuroLLM-1.7B \
    --skip_stages "6" \
    --cpt_mixture conf/lowres_mixture_cpt.yaml \
    --cpt_valid_mixture conf/lowres_mixture_cpt_valid.yaml \
    --cpt_config conf/lowres_train_cpt.yaml \
    --it_mixture conf/lowres_mixture_it.yaml \
    --it_valid_mixture conf/lowres_mixture_it_valid.yaml \
    --it_config conf/lowres_train_it.yaml \
    --export_checkpoint best \
    --inference_jobs "asr.{speech_lang}-{speech_lang} mt.{speech_lang}-{target_lang} st.{speech_lang}-{target_lang} st_cascade.{speech_lang}-{target_lang}" \
    --report_title "Low-resource speech translation: results" \
    "$@"
