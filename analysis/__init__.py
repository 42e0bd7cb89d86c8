"""From result files to answers. Knows the result schema and nothing else of the runner."""
