"""Pure renderers: state in, text out."""
