"""An example of a package that extends lfm-atlas."""
