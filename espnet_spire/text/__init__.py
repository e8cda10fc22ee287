"""Prompt formats (the only copy), languages, vocabulary extension, normalisation."""
