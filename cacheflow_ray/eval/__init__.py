"""How well it answers: published benchmarks, and questions whose answers are known by construction."""
