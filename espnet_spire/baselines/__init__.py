"""The systems that SPIRE is compared with: HuBERT+CTC, Whisper, SeamlessM4T."""
