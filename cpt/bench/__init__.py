"""Measures what the suite promises about itself: composing of sweeps."""
