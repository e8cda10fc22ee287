"""Scores with signatures, and the reports made of them."""
