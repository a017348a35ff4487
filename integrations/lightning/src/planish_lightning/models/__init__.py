"""Where models come from: the architectures and saved models of Transformers."""
