"""The scheduler, and nothing about language models."""
