# shellcheck shell=bash disable=SC2034
# Where the corpora are on this machine, for local/data.sh; a recipe needs those that it uses. The
# mini recipe needs none: it speaks its own. The environment's values go first.

# Speech
SPGISPEECH="${SPGISPEECH:-}" # train.csv, val.csv, train/, val/; https://datasets.kensho.com/datasets/spgispeech
GIGASPEECH="${GIGASPEECH:-}" # GigaSpeech.json, audio/; https://github.com/SpeechColab/GigaSpeech
MLS="${MLS:-}" # mls_english/ or mls_english_opus/; https://www.openslr.org/94
VOXPOPULI="${VOXPOPULI:-}" # transcribed_data/en/ or raw_audios/en/; https://github.com/facebookresearch/voxpopuli
COMMONVOICE="${COMMONVOICE:-}" # cv-corpus-18.0-2024-06-14/ with en/; https://commonvoice.mozilla.org
EUROPARL_ST="${EUROPARL_ST:-}" # v1.1/ with en/; https://www.mllp.upv.es/europarl-st
FLEURS="${FLEURS:-}" # data/en_us/, data/de_de/ …; https://huggingface.co/datasets/google/fleurs
COVOST2="${COVOST2:-}" # en/ with covost_v2.en_*.tsv; https://github.com/facebookresearch/covost
LIBRISPEECH="${LIBRISPEECH:-}" # LibriSpeech/test-clean/ …; https://www.openslr.org/12

# Text
MC4="${MC4:-}" # c4-de.tfrecord-00000-of-02048.json.gz …; https://huggingface.co/datasets/allenai/c4
PARALLEL="${PARALLEL:-}" # NAME.de-en.de, NAME.de-en.en …, at any depth; https://opus.nlpl.eu, format moses
TOWERBLOCKS="${TOWERBLOCKS:-}" # data/*.parquet; https://huggingface.co/datasets/Unbabel/TowerBlocks-v0.2
FLORES200="${FLORES200:-}" # devtest/eng_Latn.devtest …; https://github.com/facebookresearch/flores
TOWER_EVAL="${TOWER_EVAL:-}" # data/raw_data/; https://huggingface.co/datasets/Unbabel/TowerEval-Data-v0.1
