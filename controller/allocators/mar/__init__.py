"""The ``mar`` service: the least spectrum with which a mobile-AR user's experience is kept."""
