"""The commands of ``lfm-atlas``, a module a topic; ``main`` puts them together."""
