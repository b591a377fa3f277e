"""SQL in, maintained views out."""
