"""Errors, units, paths and artifacts: what every room shares. Imports nothing of ours, and nothing heavy."""
