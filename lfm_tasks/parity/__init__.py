"""Parity: whether two networks that should compute the same do, layer by layer and row by row, and where they part.

`differences` compares the rows of one layer, `transformations` names what one layer's numbers went through, `stage`
walks along the depth of two models, `files` writes what it found.
"""
