"""The causal LM inside ESPnet, and its way back to a Hugging Face directory."""
