"""SCNet: spectrogram in, spectrograms of the stems out."""
