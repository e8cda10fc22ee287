#!/usr/bin/env bash
# SPIRE on a corpus of your own: the stages of spire.sh with its names and sizes. What is not named
# here has the paper's value; ./spire.sh --help lists everything. Sets are those that local/data.sh
# leaves in data/; of test sets nothing is ever left out.
#   ./run.sh --stop_stage 2             prepares the data and checks it
#   ./run.sh --stage 3 --stop_stage 5   units and vocabulary
#   ./run.sh                            all of it; what is finished is not done again
set -euo pipefail

./spire.sh \
    --ngpu 1 \
    --nj 8 \
    --inference_nj 1 \
    --gpu_inference true \
    --train_set train \
    --valid_set dev \
    --test_sets test \
    --speech_lang en \
    --max_wav_duration 60 \
    --encoder facebook/hubert-large-ll60k \
    --encoder_layer 22 \
    --num_clusters 5000 \
    --kmeans_hours 720 \
    --base_model Unbabel/TowerBase-7B-v0.1 \
    --skip_stages "6" \
    --cpt_mixture mixture_cpt.yaml \
    --cpt_config conf/train_cpt.yaml \
    --it_mixture mixture_it.yaml \
    --it_config conf/train_it.yaml \
    --inference_jobs "asr.en-en" \
    "$@"
# Translations are in data/<set>/text.tc.de: add st.en-de and st_cascade.en-de to --inference_jobs.
# There are none: without --skip_stages "6" stage 6 makes pseudo-labels, see --pseudo_langs "de".
