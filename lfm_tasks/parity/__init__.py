"""Parity: layer by layer and row by row, whether two networks that should be equivalent are, and where they diverge.

`differences` compares the rows of one layer, `transformations` names what one layer's numbers went through, `stage`
walks along the depth of two models, `files` writes what it found.
"""
