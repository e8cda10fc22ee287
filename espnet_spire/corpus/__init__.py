"""Corpora to Kaldi data directories: formatting, filtering, pseudo-labels."""
