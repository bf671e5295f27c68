"""The augmentations of INPUT.AUGMENTATIONS, and the mapper that applies them."""
