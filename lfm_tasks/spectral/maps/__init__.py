"""Functional maps from descriptors: fitted, refined, decoded, made consistent."""
