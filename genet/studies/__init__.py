"""The papers' studies, on any convolutional network."""
