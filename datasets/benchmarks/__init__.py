"""Label formats of the public benchmarks: grid, taxonomy, reader and writer."""
