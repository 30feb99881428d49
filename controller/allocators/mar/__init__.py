"""Mobile augmented reality by digital twins (QoE-CSP)."""
