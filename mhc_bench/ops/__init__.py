"""The maths of the variants: readable references, and versions of them that cost less."""
