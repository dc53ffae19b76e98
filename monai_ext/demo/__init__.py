"""The demonstration: everything once, on made-up patients."""
