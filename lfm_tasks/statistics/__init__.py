"""Nulls, intervals, false discoveries: numbers in, numbers out."""
