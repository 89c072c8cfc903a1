"""Descent of models: levels of relation, evidence from atlases and weights, families.

`levels` has the words that the page, the commands, audits and Python share; `relations` says which of them holds for
each pair of models of an atlas; `families` joins pairs to groups with a tree; `evidence` and `weights` are arithmetic.
"""
