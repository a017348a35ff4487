"""What all model backends share: where a model runs, and where it comes from. Imports no torch by itself."""
