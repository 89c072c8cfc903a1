"""Stage previews: what the points are on which two spaces differ most, as pictures and texts of the atlas."""
