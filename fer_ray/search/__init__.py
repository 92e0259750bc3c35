"""Ray Tune and Optuna: the honest search."""
