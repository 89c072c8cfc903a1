"""Stage transfers: rows carried between spaces from a few anchors."""
