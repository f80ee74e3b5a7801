"""Measuring and training encoders on labelled videos."""
