"""Upgrades of embedding models: whether stored vectors can be carried into a new model's space, and carrying them.

`adapters` fits the maps, `ranking` says what search makes of carried rows, `evidence` draws the curve over the number
of pairs, `groups` stands in for labels, `verdict` judges it; `bulk` carries files of any size, `parts` on workers,
`export` writes the map for query servers.
"""
