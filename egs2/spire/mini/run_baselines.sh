#!/usr/bin/env bash
# HuBERT+CTC in miniature, after ./run.sh (stages 1 to 3 of it are enough). Whisper and SeamlessM4T
# need their weights: --systems "Whisper-base=whisper:openai/whisper-base".
set -euo pipefail

local/baselines.sh \
    --ngpu 0 \
    --encoder exp/standin_hubert_small \
    --config conf/mini_train_ctc.yaml \
    --tag mini \
    --train_set train_it \
    --valid_set dev \
    --test_sets test \
    --speech_jobs "asr.en-en mt.en-de mt.en-fr mt.en-zh mt.de-en mt.fr-en mt.zh-en st.en-de st.en-fr st.en-zh st_cascade.en-de st_cascade.en-fr st_cascade.en-zh" \
    --systems "HuBERT+CTC=ctc" \
    "$@"
