"""`fer-ray doctor`: what a machine and a cluster offer, what is wrong, and what to do about it."""
