"""The cuSPARSELt route to the sparse tensor cores: its compressed layout, packers that write it, and cached plans."""
