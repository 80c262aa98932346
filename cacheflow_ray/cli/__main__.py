"""`python -m cacheflow_ray.cli`."""

from cacheflow_ray.cli import main

main()
