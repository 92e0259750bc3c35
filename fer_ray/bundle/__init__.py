"""The immutable, pickle-free form of a trained model, and the Predictor that reads it."""
