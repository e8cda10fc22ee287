"""Offline stand-ins: a spoken toy corpus, a small HuBERT, a small Tower, a quality score."""
