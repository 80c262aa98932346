"""What a thousand cameras or a hundred thousand hours of archive would take, from costs measured on this machine.

calibrating, asking, decoding ──runs──> fitting ──> measured ──┐
profiles (a 7B model on a GPU, by arithmetic)       costs <────┴──> model: live, archive ──> machines, money
validate: another workload, predicted by the same fits, then measured
"""
