"""Prompts to token ids to batches; mixtures; the DeepSpeed trainer."""
