"""The paper of the ``mar`` service (digital-twin-based QoE-CSP): its figures, its problem from files."""
