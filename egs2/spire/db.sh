# shellcheck shell=bash
# Where the corpora are on this machine; a recipe says which of them it needs.
# The mini recipe needs none: it speaks its own.
