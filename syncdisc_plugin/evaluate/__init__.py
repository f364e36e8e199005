"""Figures, evaluation and the report."""
