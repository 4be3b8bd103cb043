"""BS-RoFormer and Mel-Band RoFormer: masks of the spectrogram, by transformers over time and over bands."""
