"""Variants times seeds: what is missing, run side by side, recorded; and the functions of the verbs."""
