"""SPIRE for ESPnet: a text translation LLM that is taught to hear."""

__version__ = "0.1.0"
