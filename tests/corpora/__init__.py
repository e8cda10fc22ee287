"""Corpora in miniature. A package by name: benchmarks/ has a module of the same name."""
