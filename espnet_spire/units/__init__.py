"""Speech to discrete units: audio, encoder, k-means, codebook, extraction, notation."""
