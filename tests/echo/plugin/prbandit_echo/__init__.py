"""The ``echo`` service: one message a second, back within 100 ms."""
