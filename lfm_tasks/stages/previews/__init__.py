"""Stage previews: the inputs on which two spaces differ most, as pictures and texts of the atlas."""
