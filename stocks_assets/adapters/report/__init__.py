"""The market report: read from the warehouse, rendered as pages, kept in the bucket."""
