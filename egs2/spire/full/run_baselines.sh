#!/usr/bin/env bash
# The paper's baselines on the test sets of ./run.sh (stages 1 and 2 of it are enough): HuBERT-large
# with CTC, trained on CommonVoice; Whisper base and large-v3; SeamlessM4T v2.
#   ./run_baselines.sh --ngpu 1 --dtype bfloat16
set -euo pipefail

speech_jobs="asr.en-en" text_jobs=""
for lang in de fr nl it es pt ko ru zh; do
    speech_jobs+=" st.en-${lang} st_cascade.en-${lang}"
    text_jobs+=" mt.en-${lang} mt.${lang}-en"
done

local/baselines.sh \
    --recipe conf/full_corpora.yaml \
    --encoder facebook/hubert-large-ll60k \
    --config conf/train_ctc.yaml \
    --train_set commonvoice_train \
    --valid_set commonvoice_dev \
    --speech_jobs "${speech_jobs}" \
    --text_jobs "${text_jobs}" \
    "$@"
